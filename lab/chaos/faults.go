package chaos

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

// round is one round's state, as the faults see it.
type round struct {
	*path
	history *history
	clients *clients
	alone   sync.RWMutex // written by a fault that strikes while no other does
}

// fault is one way to break the path.
type fault struct {
	kind string // family first: kill-relay, kinesis-throttled ...
	// strike breaks, sees that it is broken, and mends. Its error says that the fault did not strike: the round is worth nothing then.
	strike func(ctx context.Context, r *round, random *rand.Rand) error
	// versions is the first major version of PostgreSQL on which the fault can strike. 0 means
	// every version.
	versions int
	// alone is set where a verdict needs everything else to be well while the fault strikes.
	alone bool
}

// Two lanes of faults strike at the same time: one at services and by writers, one at processes and the database. Two faults of one
// lane would undo each other.
var (
	serviceLane = slices.Concat(kinesisFaults, eventsFaults, rulesFaults, queueFaults, writerFaults, harmlessFaults)
	machineLane = slices.Concat(processFaults, failpointFaults, databaseFaults, slotFaults, harmFaults, roleFaults, retentionFaults)
)

// strikeTimeout is how long a fault may wait for its trigger. Each one makes sure that the trigger comes.
const strikeTimeout = 45 * time.Second

// strikeAll strikes one fault after the other, at random moments.
func (r *round) strikeAll(ctx context.Context, faults []fault, random *rand.Rand) error {
	for _, f := range faults {
		if err := sleep(ctx, time.Duration(random.IntN(300))*time.Millisecond); err != nil {
			return err
		}
		if err := r.strikeOne(ctx, f, random); err != nil {
			return fmt.Errorf("fault %s did not strike: %w", f.kind, err)
		}
	}
	return nil
}

func (r *round) strikeOne(ctx context.Context, f fault, random *rand.Rand) error {
	if f.alone {
		r.alone.Lock()
		defer r.alone.Unlock()
	} else {
		r.alone.RLock()
		defer r.alone.RUnlock()
	}
	window := judge.Window{Kind: f.kind, Start: time.Now()}
	striking, cancel := context.WithTimeout(ctx, strikeTimeout)
	defer cancel()
	if err := f.strike(striking, r, random); err != nil {
		return err
	}
	window.End = time.Now()
	r.history.add(func() { r.history.windows = append(r.history.windows, window) })
	r.log.Info("fault", "kind", f.kind, "took", window.End.Sub(window.Start).String())
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// between draws a time.
func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(random.Int64N(int64(high-low)))
}

// deck deals kinds so that each comes once before any comes again: a run of a few rounds meets every one.
type deck struct {
	kinds  []fault
	left   []fault
	random *rand.Rand
}

func (d *deck) deal(n int) []fault {
	var hand []fault
	for range n {
		if len(d.left) == 0 {
			d.left = slices.Clone(d.kinds)
			d.random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
		}
		hand, d.left = append(hand, d.left[0]), d.left[1:]
	}
	return hand
}

// possible returns the faults that can strike on the version of the server.
func (p *path) possible(kinds []fault) []fault {
	return slices.DeleteFunc(slices.Clone(kinds), func(f fault) bool { return f.versions > p.version })
}

func find(kind string) fault {
	for _, f := range slices.Concat(serviceLane, machineLane) {
		if f.kind == kind {
			return f
		}
	}
	panic("no fault " + kind)
}

func isService(f fault) bool {
	return slices.ContainsFunc(serviceLane, func(other fault) bool { return other.kind == f.kind })
}

// A fault of a service is switched on, seen to strike, left on for a while, and switched off.

var kinesisFaults = []fault{
	service("kinesis-throttled", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Rate: 0.5}),
	service("kinesis-entry-failures", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.3}),
	service("kinesis-error", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.CallError, Status: 500}),
	service("kinesis-reset", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.Reset, Rate: 0.5}),
	service("kinesis-reset-after", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.ResetAfter, Rate: 0.3}),
	service("kinesis-lost-answer", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.LostAnswer, Count: 1}),
	service("kinesis-slow", awslocal.Fault{Operation: "PutRecords", Kind: awslocal.Delay, Delay: 200 * time.Millisecond}),
	service("kinesis-reads-throttled", awslocal.Fault{Operation: "GetRecords", Kind: awslocal.CallError, Code: "ProvisionedThroughputExceededException"}),
	service("kinesis-iterator-expired", awslocal.Fault{Operation: "GetRecords", Kind: awslocal.CallError, Code: "ExpiredIteratorException", Count: 2}),
}

var eventsFaults = []fault{
	service("events-entry-failures", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.3}),
	service("events-throttled", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.EntryError, Code: "ThrottlingException", Rate: 0.5}),
	service("events-error", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.CallError, Status: 503}),
	service("events-reset", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.Reset, Rate: 0.5}),
	service("events-reset-after", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.ResetAfter, Rate: 0.3}),
	service("events-lost-answer", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.LostAnswer, Count: 1}),
	service("events-slow", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.Delay, Delay: 100 * time.Millisecond}),
	// The capacity is far below what the load writes. Calls wait behind one another, and for longer
	// the more of them are under way.
	serviceFor("events-capacity", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.Capacity, Capacity: 20}, 3*time.Second, 4*time.Second, nil),
	// Longer than the function's timeout: invocations end with failed records.
	serviceFor("events-down", awslocal.Fault{Operation: "PutEvents", Kind: awslocal.CallError, Status: 500}, 7*time.Second, 8*time.Second, nil),
}

// Between the bus and a subscriber's queue nothing keeps order, and anything may come twice.
var rulesFaults = []fault{
	service("rules-duplicates", awslocal.Fault{Kind: awslocal.Duplicate, Delay: 500 * time.Millisecond, Rate: 0.5}),
	service("rules-disorder", awslocal.Fault{Kind: awslocal.Delay, Delay: time.Second, Rate: 0.5}),
}

// The failure queue is only used when there is poison.
var queueFaults = []fault{
	serviceFor("queue-error", awslocal.Fault{Operation: "SendMessage", Kind: awslocal.CallError, Status: 500}, 500*time.Millisecond, time.Second, (*round).putPoison),
	// Longer than all the SDK's retries: parking fails.
	serviceFor("queue-down", awslocal.Fault{Operation: "SendMessage", Kind: awslocal.CallError, Status: 500}, 5*time.Second, 6*time.Second, (*round).putPoison),
	serviceFor("queue-reset-after", awslocal.Fault{Operation: "SendMessage", Kind: awslocal.ResetAfter, Count: 2}, 100*time.Millisecond, time.Second, (*round).putPoison),
	serviceFor("queue-lost-answer", awslocal.Fault{Operation: "SendMessage", Kind: awslocal.LostAnswer, Count: 1}, 100*time.Millisecond, time.Second, (*round).putPoison),
}

func service(kind string, f awslocal.Fault) fault {
	return serviceFor(kind, f, 500*time.Millisecond, 1500*time.Millisecond, nil)
}

// serviceFor strikes for a time from low to high. trigger makes the calls that are to be struck; nil: there are enough.
func serviceFor(kind string, f awslocal.Fault, low, high time.Duration, trigger func(*round, context.Context) error) fault {
	f.Service, _, _ = strings.Cut(kind, "-")
	if f.Service == "queue" {
		f.Service = "sqs"
	}
	return fault{kind: kind, strike: func(ctx context.Context, r *round, random *rand.Rand) error {
		f.Seed = random.Uint64()
		active, err := r.switchOn(ctx, f, trigger)
		return errors.Join(err, active.last(ctx, between(random, low, high)), active.off(ctx))
	}}
}

// active is a fault that is switched on.
type active struct {
	*round
	id    string
	fault awslocal.Fault
}

// switchOn returns once the fault has struck. off is due whatever it returns.
func (r *round) switchOn(ctx context.Context, f awslocal.Fault, trigger func(*round, context.Context) error) (*active, error) {
	a := &active{round: r, id: cryptorand.Text(), fault: f}
	triggered := false
	err := r.await(ctx, "the fault's strike", func(ctx context.Context) error {
		struck, err := a.ensure(ctx)
		switch {
		case err != nil:
			triggered = false
			return err
		case trigger != nil && !triggered:
			triggered = true
			return errors.Join(trigger(r, ctx), errors.New("not yet"))
		case struck == 0:
			return fmt.Errorf("%s %s %s was not hit", f.Service, f.Operation, f.Kind)
		}
		return nil
	})
	return a, err
}

// ensure tells how often the fault struck. A listener that is killed meanwhile has forgotten it: it is switched on again, and that is an
// error, because it counts from 0.
func (a *active) ensure(ctx context.Context) (struck int, err error) {
	struck, err = a.faults.Struck(ctx, a.id)
	if errors.Is(err, local.ErrNoFault) {
		err = errors.Join(err, a.faults.On(ctx, a.id, a.fault))
	}
	return struck, err
}

// last keeps the fault on for d, also when the listener is killed meanwhile.
func (a *active) last(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := a.ensure(ctx); err != nil && ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, min(50*time.Millisecond, time.Until(end))); err != nil {
			return err
		}
	}
	return nil
}

// off takes the fault away, whatever has become of ctx: one that stays on is no fault of the path.
func (a *active) off(ctx context.Context) error {
	return a.await(context.WithoutCancel(ctx), "the fault's end", func(ctx context.Context) error { return a.faults.Off(ctx, a.id) })
}
