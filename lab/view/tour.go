package view

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/lab/local"
)

// tourState is the tour as /live has it.
type tourState struct {
	Running int          `json:"running"` // the experiment, or 0
	Step    int          `json:"step"`    // of it, from 1
	Said    string       `json:"said"`    // what is being waited for
	ByHand  bool         `json:"byHand"`  // the reader says when the next step begins
	Waiting bool         `json:"waiting"` // for the reader to say so
	Results []tourResult `json:"results"` // the latest of each experiment
}

type tourResult struct {
	N      int    `json:"n"`
	Passed bool   `json:"passed"`
	Text   string `json:"text"`
}

// tour runs the experiments, one at a time. No experiment relies on time that has passed. Each one
// checks that its fault struck, waits for what it expects, and reports it with the numbers that it
// counted.
type tour struct {
	switches *switches
	load     *load
	totals   func() totals // an experiment is judged by the numbers that the page shows

	// stepTime is the shortest time for which a step is shown. Nothing else depends on it.
	stepTime time.Duration

	mu     sync.Mutex
	now    tourState
	next   chan struct{}      // the reader wants the next step of this experiment; holds one
	cancel context.CancelFunc // of the experiment that runs
	done   chan struct{}
}

const (
	// experimentTimeout is the time after which an experiment has failed. Each takes a fraction of
	// it.
	experimentTimeout = 2 * time.Minute
	// byHandTimeout is the same while a speaker explains the steps.
	byHandTimeout = time.Hour
	readingTime   = 3 * time.Second // for a step
)

func newTour(s *switches, l *load, totals func() totals) *tour {
	return &tour{switches: s, load: l, totals: totals, stepTime: readingTime, now: tourState{Results: []tourResult{}}}
}

// state returns the tour as /live has it.
func (t *tour) state() tourState {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now
	now.Results = slices.Clone(t.now.Results)
	return now
}

// free returns an error while an experiment runs. Then nobody else may switch or make cars, because the experiment counts both.
func (s tourState) free() error {
	if s.Running == 0 {
		return nil
	}
	return local.NotNowError(fmt.Sprintf("experiment %d is running: stop it, or wait for its end", s.Running))
}

// start starts experiment n, and returns at once. By hand, each step after the first waits for goOn.
func (t *tour) start(n int, byHand bool) error {
	i := slices.IndexFunc(experiments, func(e experiment) bool { return e.N == n })
	if i < 0 {
		return errNoExperiment
	}
	e := experiments[i]
	for _, name := range e.switches {
		if err := t.switches.named(name).Can(); err != nil {
			return local.NotNowError(fmt.Sprintf("experiment %d needs switch %s: %s", n, name, err))
		}
	}
	if t.switches.ctx.Err() != nil {
		return local.NotNowError("make dev is ending")
	}
	if relay := t.switches.path.Relay; !relay.Running() && !relay.Killed() {
		return local.NotNowError("the relay was stopped by `make relay-stop`: start it first (make relay-start)")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.now.free(); err != nil {
		return err
	}
	timeout := experimentTimeout
	if byHand {
		timeout = byHandTimeout
	}
	ctx, cancel := context.WithTimeout(t.switches.ctx, timeout)
	t.cancel, t.done, t.next = cancel, make(chan struct{}), make(chan struct{}, 1)
	t.now.Running, t.now.Step, t.now.Said, t.now.ByHand = n, 1, "", byHand
	go t.run(ctx, cancel, e, t.done)
	return nil
}

// goOn begins the next step of an experiment that is run by hand.
func (t *tour) goOn() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.now.Waiting {
		return local.NotNowError("no experiment waits for its next step")
	}
	t.now.Waiting = false
	t.next <- struct{}{}
	return nil
}

var errNoExperiment = refusal{http.StatusNotFound, fmt.Sprintf("there is no such experiment: they are numbered 1 to %d", len(experiments))}

// stop ends the experiment that runs, if one runs, and returns when its faults are off.
func (t *tour) stop() {
	t.mu.Lock()
	cancel, done := t.cancel, t.done
	t.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	<-done
}

func (t *tour) run(ctx context.Context, cancel context.CancelFunc, e experiment, done chan<- struct{}) {
	defer close(done)
	defer cancel()
	text, err := t.try(ctx, e)
	stopped := errors.Is(ctx.Err(), context.Canceled)
	mending := t.switches.allOff(context.WithoutCancel(ctx))
	result := tourResult{e.N, err == nil && mending == nil, text}
	switch {
	case stopped && mending == nil:
		result = tourResult{e.N, false, "Stopped before its end. Its faults are off again."}
	case stopped:
		result.Text = "Stopped before its end."
	case err != nil:
		result.Text = "Not as expected: " + err.Error()
	case mending != nil:
		result.Text = "Not as expected: its faults cannot be switched off: " + mending.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Results = slices.DeleteFunc(t.now.Results, func(r tourResult) bool { return r.N == e.N })
	t.now.Results = append(t.now.Results, result)
	slices.SortFunc(t.now.Results, func(a, b tourResult) int { return a.N - b.N })
	t.now.Running, t.now.Step, t.now.Said, t.now.ByHand, t.now.Waiting, t.cancel = 0, 0, "", false, false, nil
}

// try runs one experiment on a path that is whole and quiet, so that it counts only its own events.
func (t *tour) try(ctx context.Context, e experiment) (string, error) {
	r := &run{tour: t, ctx: ctx}
	t.load.set(0)
	if err := t.switches.allOff(ctx); err != nil {
		return "", fmt.Errorf("switching all faults off first: %w", err)
	}
	r.quiet()
	r.say("")
	r.shown = time.Now()
	text := e.run(r)
	r.fail(ctx.Err())
	r.linger()
	return text, r.failure
}

// run is one run of an experiment. Its methods do nothing once it is over, so that an experiment reads as what it does.
type run struct {
	*tour
	ctx     context.Context
	failure error // the first, because those after it follow from it
	before  totals
	shown   time.Time // since when the step is shown
}

// over reports whether the experiment has failed or its time has ended.
func (r *run) over() bool { return r.failure != nil || r.ctx.Err() != nil }

// fail ends the experiment, if err is not nil.
func (r *run) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
}

// expect ends the experiment unless what it has promised holds.
func (r *run) expect(holds bool, format string, args ...any) {
	if !holds && !r.over() {
		r.failure = fmt.Errorf(format, args...)
	}
}

// quiet waits until nothing is on the way and nothing has been counted for a while, and counts from
// there on. The second condition is needed because an event between the bus and the subscriber
// cannot be seen before it is counted.
func (r *run) quiet() {
	last, since := totals{}, time.Now()
	r.await("the path to be quiet", func(totals) string {
		now := r.totals()
		if now != last {
			last, since = now, time.Now()
		}
		r.before = now
		if now.OnTheWay > 0 {
			return plural.Of(now.OnTheWay, "event") + " on the way"
		}
		return missing(time.Since(since) < quietTime, "a copy may still arrive")
	})
}

// quietTime is longer than the time of two looks at the totals, and longer than a duplicate is held
// back.
const quietTime = 1500 * time.Millisecond

// step shows which of its steps the experiment has come to, after the step before was shown for long enough.
func (r *run) step(n int) {
	if r.over() {
		return
	}
	r.mu.Lock()
	byHand, next := r.now.ByHand, r.next
	r.now.Waiting = byHand
	r.mu.Unlock()
	if byHand {
		select {
		case <-next:
		case <-r.ctx.Done():
		}
	} else {
		r.linger()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Step, r.now.Said, r.now.Waiting, r.shown = n, "", false, time.Now()
}

// linger waits until the step has been shown for stepTime.
func (r *run) linger() { sleep(r.ctx, time.Until(r.shown.Add(r.stepTime))) }

func (r *run) say(said string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Said = said
}

// sofar returns by how much the totals have grown since the experiment began.
func (r *run) sofar() totals {
	if r.over() {
		return totals{}
	}
	n, b := r.totals(), r.before
	return totals{
		Cars: n.Cars - b.Cars, Counted: n.Counted - b.Counted, Committed: n.Committed - b.Committed, OnBus: n.OnBus - b.OnBus,
		OnTheWay: n.OnTheWay, Lost: n.Lost - b.Lost, Duplicates: n.Duplicates - b.Duplicates, Suppressed: n.Suppressed - b.Suppressed,
		Parked: n.Parked - b.Parked, OutOfOrder: n.OutOfOrder - b.OutOfOrder,
	}
}

// await waits until nothing is missing, and shows meanwhile what is.
func (r *run) await(what string, missing func(sofar totals) string) {
	for !r.over() {
		why := missing(r.sofar())
		if why == "" {
			return
		}
		r.say("Waiting for " + what + ": " + why + ".")
		sleep(r.ctx, 50*time.Millisecond)
		if errors.Is(r.ctx.Err(), context.DeadlineExceeded) {
			r.fail(fmt.Errorf("waited too long for %s: %s", what, why))
		}
	}
}

// missing returns the formatted text if is is true, and "" otherwise.
func missing(is bool, format string, args ...any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// switchFault switches one of the faults.
func (r *run) switchFault(name string, on bool) {
	if !r.over() {
		_, err := r.switches.set(r.ctx, name, on)
		r.fail(err)
	}
}

// struck waits until a switch has struck that often, because a fault that does not strike proves
// nothing.
func (r *run) struck(name string, times int) {
	r.await(fmt.Sprintf("%s to strike", name), func(totals) string {
		n := r.strikes(name)
		return missing(n < times, "%d of %d times", n, times)
	})
}

func (r *run) strikes(name string) int { return r.switches.state(r.switches.named(name)).Struck }

// arrived waits until the experiment's cars and events are there, every committed event is on the
// bus, every car is counted, and the subscriber has seen every duplicate. Then it expects that nothing
// is wrong. It does not wait for that, because a lost event or a wrong order does not become right by
// waiting.
func (r *run) arrived(cars, events int64) {
	r.await("all that was committed to arrive", func(n totals) string {
		return missing(n.Cars < cars || n.Committed < events || n.OnTheWay > 0 || n.OnBus < n.Committed || n.Counted < n.Cars || n.Suppressed < n.Duplicates,
			"%d events committed, %d on the bus; %d cars, %d counted", n.Committed, n.OnBus, n.Cars, n.Counted)
	})
	n := r.sofar()
	r.expect(n.Lost == 0 && n.OutOfOrder == 0 && n.OnBus == n.Committed && n.Counted == n.Cars,
		"%d events committed, %d on the bus, %d lost, %d out of order; %d cars, %d counted", n.Committed, n.OnBus, n.Lost, n.OutOfOrder, n.Cars, n.Counted)
}
