package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/local"
)

// switchDefinition is a switch as /meta has it.
type switchDefinition struct {
	*faults.Fault
	StrikesOnce bool   `json:"once"` // it is not on until it is switched off
	Disabled    string `json:"disabled,omitempty"`
}

// switchState is a switch as /live has it.
type switchState struct {
	Name   string `json:"name"`
	On     bool   `json:"on"`     // its fault is in force
	Busy   bool   `json:"busy"`   // it is being switched
	Struck int    `json:"struck"` // how often it struck since it was switched on last
	Error  string `json:"error"`  // why switching it failed last time
}

// errNoSwitch means that there is no switch of that name.
var errNoSwitch = refusal{http.StatusNotFound, "there is no such switch"}

const (
	// switchTimeout is how long switching may take. PostgreSQL may have to recover, or a relay to drain.
	switchTimeout = 60 * time.Second
	// onceTimeout is how long a fault that strikes once waits for what it strikes, unless a test has more patience. It may be
	// waiting for another switch to be off, which cannot be switched meanwhile.
	onceTimeout = 20 * time.Second
)

// switches are the page's controls of the path's faults. A switch does not remember whether it is
// on. It asks its fault, because others can mend the path as well (make relay-start).
type switches struct {
	path *local.Path
	log  *slog.Logger
	all  []*faultSwitch

	ctx  context.Context // ends with close
	end  context.CancelFunc
	turn chan struct{} // taken while a fault strikes or is mended, because two at once would undo each other

	onceTimeout time.Duration

	mu sync.Mutex

	history history
}

// faultSwitch is one switch. switches.mu guards its state.
type faultSwitch struct {
	*faults.Fault

	busy   int
	struck int // how often it was switched on; unused where the fault counts its strikes
	failed string
}

func newSwitches(s *local.Path, log *slog.Logger) *switches {
	all := &switches{path: s, log: log, turn: make(chan struct{}, 1), onceTimeout: onceTimeout}
	all.ctx, all.end = context.WithCancel(context.Background())
	for _, f := range faults.Of(s) {
		all.all = append(all.all, &faultSwitch{Fault: f})
	}
	return all
}

// definitions returns the switches as /meta has them.
func (s *switches) definitions() []switchDefinition {
	var all []switchDefinition
	for _, one := range s.all {
		d := switchDefinition{Fault: one.Fault, StrikesOnce: one.Once()}
		if err := one.Can(); err != nil {
			d.Disabled = err.Error()
		}
		all = append(all, d)
	}
	return all
}

// named returns the switch of that name, or nil.
func (s *switches) named(name string) *faultSwitch {
	i := slices.IndexFunc(s.all, func(one *faultSwitch) bool { return one.Name == name })
	if i < 0 {
		return nil
	}
	return s.all[i]
}

// list returns the states of all switches.
func (s *switches) list() []switchState {
	var all []switchState
	for _, one := range s.all {
		all = append(all, s.state(one))
	}
	return all
}

func (s *switches) state(one *faultSwitch) switchState {
	s.mu.Lock()
	defer s.mu.Unlock()
	struck := one.struck
	if one.Struck != nil {
		struck = one.Struck()
	}
	return switchState{Name: one.Name, On: one.InForce(), Busy: one.busy > 0, Struck: struck, Error: one.failed}
}

// faultsAt returns the names of the switches that are on at a station.
func (s *switches) faultsAt(hop int) []string {
	names := []string{}
	for _, one := range s.all {
		if one.Hop == hop && one.InForce() {
			names = append(names, one.Name)
		}
	}
	return names
}

// set switches, and returns when it is done. ctx bounds the wait until it begins. After that it
// is not cancelled, because a server must not be left half stopped.
func (s *switches) set(ctx context.Context, name string, on bool) (switchState, error) {
	one := s.named(name)
	if one == nil {
		return switchState{}, errNoSwitch
	}
	if one.Once() && !on {
		return switchState{}, local.NotNowError(fmt.Sprintf("%s strikes once: there is nothing to switch off", name))
	}
	if err := one.Can(); err != nil {
		return switchState{}, err
	}
	err := s.exclusively(ctx, one, func(ctx context.Context) error {
		if !one.Once() && one.InForce() == on {
			return nil
		}
		return s.change(ctx, one, on)
	})
	return s.state(one), err
}

// exclusively runs work when no other switch is being switched, and shows the switch as busy until
// it is done.
func (s *switches) exclusively(ctx context.Context, one *faultSwitch, work func(context.Context) error) error {
	busy := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.busy += n
	}
	busy(1)
	defer busy(-1)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another switch: %w", ctx.Err())
	case <-s.ctx.Done():
	}
	if s.ctx.Err() != nil {
		return local.NotNowError("make dev is ending")
	}
	timeout := switchTimeout
	if one.Once() {
		timeout = s.onceTimeout
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	err := work(ctx)
	s.past(time.Now())
	return err
}

// past returns the faults of the past and their times. It reads the switches as well, because
// others can mend the path, too.
func (s *switches) past(now time.Time) []faultSpan {
	s.history.note(now, s.all, s.list)
	return s.history.list()
}

func (s *switches) change(ctx context.Context, one *faultSwitch, on bool) (err error) {
	if on {
		err = one.Strike(ctx)
	} else {
		err = one.Mend(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one.failed = ""
	switch {
	case err != nil:
		one.failed = err.Error()
		s.log.Warn("switching a fault", "switch", one.Name, "on", on, "error", err.Error())
	case on && one.Once():
		one.struck++
	case on:
		one.struck = 1
	}
	if err == nil {
		s.log.Info("a fault was switched", "switch", one.Name, "on", on)
	}
	return err
}

// poison puts a record that can never be an event on the stream, among the records of the partition
// key.
func (s *switches) poison(ctx context.Context, key string) error {
	one := s.named("poison")
	return s.exclusively(ctx, one, func(ctx context.Context) error {
		if err := s.path.PutPoison(ctx, key); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		one.struck++
		return nil
	})
}

// allOff mends everything. The services come first, because a relay drains into them. The database
// and the relays follow in the order of the path.
func (s *switches) allOff(ctx context.Context) error {
	var all error
	for _, services := range []bool{true, false} {
		for _, one := range s.all {
			if (one.Rules != nil) == services && one.InForce() {
				_, err := s.set(ctx, one.Name, false)
				all = errors.Join(all, err)
			}
		}
	}
	return all
}

// close refuses all later switching. Faults stay in force, because a path that ends needs no
// mending, and the next one starts whole.
func (s *switches) close() {
	s.end()
	s.turn <- struct{}{} // after the switch that is being switched
}
