package awslocal

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// FaultKind is what a fault does to a call.
type FaultKind string

// The kinds of faults.
const (
	// CallError answers the call with Code and Status instead of carrying it out, such as a
	// throttle, AccessDeniedException, 413 or 5xx.
	CallError FaultKind = "call-error"
	// EntryError fails single entries of PutRecords and PutEvents with Code. The other entries are
	// carried out.
	EntryError FaultKind = "entry-error"
	// LostAnswer carries the call out and never answers, so the client runs into its own timeout.
	LostAnswer FaultKind = "lost-answer"
	// Reset resets the connection before anything is carried out.
	Reset FaultKind = "reset"
	// ResetAfter carries the call out and resets the connection instead of answering.
	ResetAfter FaultKind = "reset-after"
	// Delay waits, then lets the call (and further faults) go on. A delivery of Service "rules"
	// comes later by up to the Delay. Each delivery has another delay, so their order changes.
	Delay FaultKind = "delay"
	// Capacity serves the entries of PutRecords and PutEvents one after another, at a fixed rate.
	// Every other call counts as one entry. It goes on with calls whose client has left, as a real
	// service does, so that retries wait behind them.
	Capacity FaultKind = "capacity"
	// Duplicate delivers an event of Service "rules" once more, at once or later by up to the Delay.
	Duplicate FaultKind = "duplicate"
	// Lose delivers an event of Service "rules" nowhere, although PutEvents has accepted it. That is EventBridge after all of its retries,
	// when the failure queue of the rule's target refuses the event, too.
	Lose FaultKind = "lose"
)

// Fault is one rule, which says which calls it strikes, what happens to them, and how often.
type Fault struct {
	Service   string // kinesis, events, sqs, secretsmanager, logs, lambda, or rules (between a bus and a queue). Empty means all but rules
	Operation string // PutRecords, ... Empty means every operation
	// Match narrows the rule to a partition key (Kinesis), to a part of Detail (PutEvents) or of
	// the body (SendMessage). Calls without such entries are then never struck. Empty means
	// everything.
	Match string
	// MinEntries narrows the rule to calls with as many entries. 0 means every call.
	MinEntries int

	Kind    FaultKind
	Code    string // of CallError and EntryError. It may be empty for CallError with Status 413 or 5xx
	Message string
	Status  int           // of CallError, default 400
	Delay   time.Duration // of Delay and Duplicate

	Capacity float64 // of Capacity, entries a second

	Count int     // strikes after which the rule is off; 0: until Off
	Rate  float64 // share of matching calls or entries that are struck; 0: all
	Seed  uint64  // of Rate's random numbers. The same seed strikes the same calls
}

// Validate says which field is wrong.
func (f Fault) Validate() error {
	switch f.Kind {
	case CallError:
		if f.Code == "" && f.Status != http.StatusRequestEntityTooLarge && f.Status < http.StatusInternalServerError {
			return errors.New("fault: Code is empty: name the error, or set Status to 413 or 5xx")
		}
		if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
			return fmt.Errorf("fault: Status %d is no error: use 400 to 599", f.Status)
		}
	case EntryError:
		if f.Code == "" {
			return errors.New("fault: Code is empty: name the entry's error")
		}
	case Delay:
		if f.Delay <= 0 {
			return errors.New("fault: Delay is empty: say how long")
		}
	case Capacity:
		if f.Capacity <= 0 {
			return errors.New("fault: Capacity is empty: say how many entries a second")
		}
	case LostAnswer, Reset, ResetAfter, Duplicate, Lose:
	default:
		return fmt.Errorf("fault: Kind %q is unknown", f.Kind)
	}
	ofRules, onlyOfRules := f.Service == serviceRules, f.Kind == Duplicate || f.Kind == Lose
	if onlyOfRules && !ofRules || ofRules && !onlyOfRules && f.Kind != Delay {
		return fmt.Errorf("fault: Kind %q of Service %q: a delivery of rules has duplicate, lose or delay, a call the others", f.Kind, f.Service)
	}
	if f.MinEntries < 0 || f.MinEntries > 0 && (ofRules || f.Kind == EntryError) {
		return fmt.Errorf("fault: MinEntries %d of Kind %q must not be negative, and only a rule of whole calls has it", f.MinEntries, f.Kind)
	}
	if f.Rate < 0 || f.Rate > 1 || f.Count < 0 {
		return fmt.Errorf("fault: Rate %g must be within 0..1 and Count %d not negative", f.Rate, f.Count)
	}
	return nil
}

// Faults holds the rules of one server. Safe for concurrent use.
type Faults struct {
	mu     sync.Mutex
	active []*Active
}

// Active is a rule that was added.
type Active struct {
	faults *Faults
	fault  Fault
	random *rand.Rand
	struck int
	busy   time.Time     // of Capacity. It is when the entries that came until now are served
	off    chan struct{} // closed when the rule is off
}

// Add switches a rule on. Rules are tried in the order they were added. Add panics for a Fault that
// Validate refuses, so call Validate first if a user wrote the rule.
func (f *Faults) Add(fault Fault) *Active {
	if err := fault.Validate(); err != nil {
		panic(err)
	}
	a := &Active{faults: f, fault: fault, random: rand.New(rand.NewPCG(fault.Seed, 0)), off: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = append(f.active, a)
	return a
}

// List returns the rules that are on, oldest first.
func (f *Faults) List() []*Active {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.active)
}

// Fault returns the rule as it was added.
func (a *Active) Fault() Fault { return a.fault }

// Struck returns how many calls, or for EntryError entries and for Service "rules" deliveries, the rule hit so far.
func (a *Active) Struck() int {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	return a.struck
}

// Off switches the rule off. Calls that LostAnswer or Delay already hold are not released. Those that wait for Capacity are.
func (a *Active) Off() {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	a.faults.remove(a)
}

func (f *Faults) remove(a *Active) {
	if slices.Contains(f.active, a) {
		close(a.off)
	}
	f.active = slices.DeleteFunc(slices.Clone(f.active), func(other *Active) bool { return other == a })
}

// take reports whether the rule strikes once more and counts it. f.mu is held.
func (f *Faults) take(a *Active) bool {
	if a.fault.Rate > 0 && a.random.Float64() >= a.fault.Rate {
		return false
	}
	a.struck++
	if a.struck == a.fault.Count {
		f.remove(a)
	}
	return true
}

func (a *Active) concerns(c *call) bool {
	return (a.fault.Service == "" || a.fault.Service == c.service) && (a.fault.Operation == "" || a.fault.Operation == c.operation)
}

// matcher is an input that Fault.Match can look into.
type matcher interface {
	matches(text string) bool
}

// countable is an input that has entries.
type countable interface {
	entries() int
}

// entriesOf counts an input without entries as one.
func entriesOf(in any) int {
	if c, ok := in.(countable); ok {
		return c.entries()
	}
	return 1
}

// strike is a rule that strikes a call.
type strike struct {
	Fault
	until time.Time       // of Capacity, when the call is served
	off   <-chan struct{} // of Capacity
}

// serve returns when a call with this input is served, behind all that came before. f.mu is held.
func (a *Active) serve(in any) time.Time {
	if now := time.Now(); a.busy.Before(now) {
		a.busy = now
	}
	a.busy = a.busy.Add(time.Duration(float64(entriesOf(in)) / a.fault.Capacity * float64(time.Second)))
	return a.busy
}

// onCall returns the rules that strike the whole call. These are the rules that hold it up, and at
// most one other at the end.
func (f *Faults) onCall(c *call, in any) (struck []strike) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.active {
		if a.fault.Kind == EntryError || !a.concerns(c) || entriesOf(in) < a.fault.MinEntries {
			continue
		}
		if a.fault.Match != "" {
			if m, ok := in.(matcher); !ok || !m.matches(a.fault.Match) {
				continue
			}
		}
		if !f.take(a) {
			continue
		}
		next := strike{Fault: a.fault}
		if a.fault.Kind == Capacity {
			next.until, next.off = a.serve(in), a.off
		}
		struck = append(struck, next)
		if a.fault.Kind != Delay && a.fault.Kind != Capacity {
			break
		}
	}
	return struck
}

// onEntry returns the rule that fails this entry of the call, or nil.
func (c *call) onEntry(matches func(text string) bool) *Fault {
	f := c.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.active {
		if a.fault.Kind != EntryError || !a.concerns(c) {
			continue
		}
		if (a.fault.Match == "" || matches(a.fault.Match)) && f.take(a) {
			return &a.fault
		}
	}
	return nil
}

var (
	errReset      = errors.New("the connection is to be reset")
	errLostAnswer = errors.New("the answer is to be lost")
)

// strike carries the call out as far as the faults let it.
func (c *call) strike(in any, run func() (any, error)) (any, error) {
	for _, fault := range c.faults.onCall(c, in) {
		switch fault.Kind {
		case Delay:
			select {
			case <-time.After(fault.Delay):
			case <-c.ctx.Done():
			case <-c.done:
			}
		case Capacity:
			select {
			case <-time.After(time.Until(fault.until)):
			case <-fault.off:
			case <-c.done:
			}
		case CallError:
			return nil, fault.apiError()
		case Reset:
			return nil, errReset
		case ResetAfter, LostAnswer:
			if _, err := run(); err != nil {
				return nil, err
			}
			if fault.Kind == ResetAfter {
				return nil, errReset
			}
			return nil, errLostAnswer
		case EntryError, Duplicate, Lose: // strike in onEntry and onDelivery
		}
	}
	return run()
}

func (f Fault) apiError() *apiError {
	return &apiError{
		status: cmp.Or(f.Status, http.StatusBadRequest), code: cmp.Or(f.Code, "InternalFailure"), message: cmp.Or(f.Message, "injected fault"),
	}
}
