package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/lab/local"
)

// switchDefinition is a switch as /meta has it.
type switchDefinition struct {
	Name     string `json:"name"`
	Label    string `json:"label"`
	Hop      int    `json:"hop"`  // the station that it strikes
	Kind     string `json:"kind"` // toggle, or once
	Text     string `json:"text"` // what it does here
	AWS      string `json:"aws"`  // what happens on AWS in that case
	Disabled string `json:"disabled,omitempty"`
}

// The kinds of switches: one that is on until it is switched off, and one that strikes.
const (
	kindToggle = "toggle"
	kindOnce   = "once"
)

// switchState is a switch as /live has it.
type switchState struct {
	Name   string `json:"name"`
	On     bool   `json:"on"`     // its fault is in force
	Busy   bool   `json:"busy"`   // it is being switched
	Struck int    `json:"struck"` // how often it struck since it was switched on last
	Error  string `json:"error"`  // why switching it failed last time
}

// conflict is what cannot be done now, and why.
type conflict string

func (c conflict) Error() string { return string(c) }

// errNoSwitch means that there is no switch of that name.
var errNoSwitch = errors.New("there is no such switch")

// switchTimeout is how long switching may take: PostgreSQL may have to recover, a relay to drain.
const switchTimeout = 60 * time.Second

// switches break the path and mend it, by the faults that tests and `make chaos` use. Whether one is on is never remembered, but looked
// at: what somebody else has mended meanwhile (make relay-start) does not show as broken.
type switches struct {
	path *local.Path
	log  *slog.Logger
	all  []*toggle

	ctx  context.Context // ends with close
	end  context.CancelFunc
	turn chan struct{} // taken while something is switched: two at once would undo each other

	mu   sync.Mutex
	held string // why nobody but the tour may switch
}

// toggle is one switch. Its state is guarded by switches.mu.
type toggle struct {
	switchDefinition
	fault

	busy   int
	struck int
	failed string
}

func newSwitches(s *local.Path, log *slog.Logger) *switches {
	all := &switches{path: s, log: log, turn: make(chan struct{}, 1)}
	all.ctx, all.end = context.WithCancel(context.Background())
	for _, d := range definitions {
		all.all = append(all.all, &toggle{switchDefinition: d, fault: faults[d.Name]()})
	}
	return all
}

// definitions are what the page is told of the switches.
func (s *switches) definitions() []switchDefinition {
	var all []switchDefinition
	for _, t := range s.all {
		d := t.switchDefinition
		if err := t.can(s.path); err != nil {
			d.Disabled = err.Error()
		}
		all = append(all, d)
	}
	return all
}

// list is the state of all switches.
func (s *switches) list() []switchState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []switchState
	for _, t := range s.all {
		all = append(all, s.state(t))
	}
	return all
}

func (s *switches) state(t *toggle) switchState {
	on, struck := t.on(s.path)
	if struck < 0 {
		struck = t.struck
	}
	return switchState{Name: t.Name, On: on, Busy: t.busy > 0, Struck: struck, Error: t.failed}
}

// faultsAt names the switches that are on at a station.
func (s *switches) faultsAt(hop int) []string {
	names := []string{}
	for _, t := range s.all {
		if on, _ := t.on(s.path); on && t.Hop == hop {
			names = append(names, t.Name)
		}
	}
	return names
}

// set switches for a person. It is refused while the tour runs, whose experiments it would spoil.
func (s *switches) set(ctx context.Context, name string, on bool) (switchState, error) {
	if err := s.heldBy(); err != nil {
		return switchState{}, err
	}
	return s.apply(ctx, name, on)
}

// heldBy says why nobody but the tour may change anything; nil when everybody may.
func (s *switches) heldBy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == "" {
		return nil
	}
	return conflict(s.held)
}

// hold lets only the tour switch until release.
func (s *switches) hold(why string) (release func()) {
	set := func(why string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = why
	}
	set(why)
	return func() { set("") }
}

// apply switches, and returns when it is done. ctx is the caller's patience until it begins; what has begun is brought to its end, because
// a server that is half stopped is no state.
func (s *switches) apply(ctx context.Context, name string, on bool) (switchState, error) {
	i := slices.IndexFunc(s.all, func(t *toggle) bool { return t.Name == name })
	if i < 0 {
		return switchState{}, fmt.Errorf("%w: %q", errNoSwitch, name)
	}
	t := s.all[i]
	if t.Kind == kindOnce && !on {
		return switchState{}, conflict(fmt.Sprintf("%s strikes once: there is nothing to switch off", name))
	}
	if err := t.can(s.path); err != nil {
		return switchState{}, conflict(err.Error())
	}
	err := s.busily(ctx, t, func(ctx context.Context) error {
		if is, _ := t.on(s.path); is == on && t.Kind == kindToggle {
			return nil
		}
		return s.change(ctx, t, on)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state(t), err
}

// busily runs work when it is its turn, and shows the switch as busy until it is done.
func (s *switches) busily(ctx context.Context, t *toggle, work func(context.Context) error) error {
	busy := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.busy += n
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
		return conflict("make dev is ending")
	}
	ctx, cancel := context.WithTimeout(s.ctx, switchTimeout)
	defer cancel()
	return work(ctx)
}

func (s *switches) change(ctx context.Context, t *toggle, on bool) (err error) {
	if on {
		err = t.strike(ctx, s.path)
	} else {
		err = t.mend(ctx, s.path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.failed = ""
	switch {
	case err != nil:
		t.failed = err.Error()
		s.log.Warn("switching a fault", "switch", t.Name, "on", on, "error", err.Error())
	case on && t.Kind == kindOnce:
		t.struck++
	case on:
		t.struck = 1
	}
	if err == nil {
		s.log.Info("a fault was switched", "switch", t.Name, "on", on)
	}
	return err
}

// poison puts a record that can never be an event on the stream, between those of partition key key.
func (s *switches) poison(ctx context.Context, key string) error {
	t := s.all[slices.IndexFunc(s.all, func(t *toggle) bool { return t.Name == "poison" })]
	return s.busily(ctx, t, func(ctx context.Context) error {
		if err := s.path.PutPoison(ctx, key); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		t.struck++
		return nil
	})
}

// allOff mends all that is broken: services first, then the database, then the relays that need both.
func (s *switches) allOff(ctx context.Context) error {
	var all error
	for _, name := range []string{
		"throttle-kinesis", "fail-entries", "bus-down", "queue-down", "duplicate", "stop-postgres", "kill-relay", "two-relays",
	} {
		i := slices.IndexFunc(s.all, func(t *toggle) bool { return t.Name == name })
		if on, _ := s.all[i].on(s.path); on {
			_, err := s.apply(ctx, name, false)
			all = errors.Join(all, err)
		}
	}
	return all
}

// close lets nothing be switched any more. What is broken stays so: a path that ends needs no mending, and the next one starts whole.
func (s *switches) close() {
	s.end()
	s.turn <- struct{}{} // after what is being switched
}
