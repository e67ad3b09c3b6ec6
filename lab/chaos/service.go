package chaos

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/local"
)

// A rule of the AWS listener is put in force, seen to strike, left in force for a while, and taken away.

var kinesisTrials = []trial{
	service("kinesis-throttled", faults.Rated(faults.KinesisThrottled, 0.5)),
	service("kinesis-entry-failures", awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.3}),
	service("kinesis-error", faults.KinesisDown),
	service("kinesis-reset", awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.Reset, Rate: 0.5}),
	service("kinesis-reset-after", awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.ResetAfter, Rate: 0.3}),
	service("kinesis-lost-answer", awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.LostAnswer, Count: 1}),
	service("kinesis-slow", faults.KinesisSlow),
	service("kinesis-reads-throttled", awslocal.Fault{Service: "kinesis", Operation: "GetRecords", Kind: awslocal.CallError, Code: "ProvisionedThroughputExceededException"}),
	service("kinesis-iterator-expired", awslocal.Fault{Service: "kinesis", Operation: "GetRecords", Kind: awslocal.CallError, Code: "ExpiredIteratorException", Count: 2}),
}

var eventsTrials = []trial{
	service("events-entry-failures", faults.Rated(faults.EntriesFail, 0.3)),
	service("events-throttled", awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "ThrottlingException", Rate: 0.5}),
	service("events-error", faults.BusDown),
	service("events-reset", awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.Reset, Rate: 0.5}),
	service("events-reset-after", faults.Rated(faults.BusAnswersLost, 0.3)),
	service("events-lost-answer", awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.LostAnswer, Count: 1}),
	service("events-slow", awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.Delay, Delay: 100 * time.Millisecond}),
	// The capacity is far below what the load writes. Calls wait behind one another, and for longer
	// the more of them are under way.
	serviceFor("events-capacity", awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.Capacity, Capacity: 20}, 3*time.Second, 4*time.Second, nil),
	// This is longer than the function's timeout, so that invocations end with failed records.
	serviceFor("events-down", faults.BusDown, 7*time.Second, 8*time.Second, nil),
}

// Between the bus and a subscriber's queue nothing keeps order, and anything may come twice.
var rulesTrials = []trial{
	service("rules-duplicates", faults.Rated(faults.Duplicates, 0.5)),
	service("rules-disorder", awslocal.Fault{Service: "rules", Kind: awslocal.Delay, Delay: time.Second, Rate: 0.5}),
}

// The failure queue is only used when there is poison.
var queueTrials = []trial{
	serviceFor("queue-error", faults.QueueDown, 500*time.Millisecond, time.Second, (*round).putPoison),
	// This is longer than all the SDK's retries, so that parking fails.
	serviceFor("queue-down", faults.QueueDown, 5*time.Second, 6*time.Second, (*round).putPoison),
	serviceFor("queue-reset-after", awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.ResetAfter, Count: 2}, 100*time.Millisecond, time.Second, (*round).putPoison),
	serviceFor("queue-lost-answer", awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.LostAnswer, Count: 1}, 100*time.Millisecond, time.Second, (*round).putPoison),
}

func service(kind string, rule awslocal.Fault) trial {
	return serviceFor(kind, rule, 500*time.Millisecond, 1500*time.Millisecond, nil)
}

// serviceFor keeps the rule in force for a time from low to high. trigger makes the calls that are
// to be struck. It is nil when there are enough.
func serviceFor(kind string, rule awslocal.Fault, low, high time.Duration, trigger func(*round, context.Context) error) trial {
	return trial{kind: kind, rule: rule, try: func(ctx context.Context, r *round, random *rand.Rand) error {
		seeded := rule
		seeded.Seed = random.Uint64()
		return r.during(ctx, seeded, trigger, func(striking *ruleInForce) error { return striking.last(ctx, between(random, low, high)) })
	}}
}

// ruleInForce is a rule of the AWS listener that strikes.
type ruleInForce struct {
	*round
	id   string
	rule awslocal.Fault
}

// during calls work once the rule has struck, and then takes the rule away, also when ctx has ended. Left in force, it would break the rest
// of the run.
func (r *round) during(ctx context.Context, rule awslocal.Fault, trigger func(*round, context.Context) error, work func(*ruleInForce) error) error {
	in := &ruleInForce{round: r, id: cryptorand.Text(), rule: rule}
	triggered := false
	err := r.await(ctx, "the fault's strike", func(ctx context.Context) error {
		struck, err := in.ensure(ctx)
		switch {
		case err != nil:
			triggered = false
			return err
		case trigger != nil && !triggered:
			triggered = true
			return errors.Join(trigger(r, ctx), errors.New("not yet"))
		case struck == 0:
			return fmt.Errorf("%s %s %s was not hit", rule.Service, rule.Operation, rule.Kind)
		}
		return nil
	})
	if err == nil {
		err = work(in)
	}
	mended := r.await(context.WithoutCancel(ctx), "the fault's end", func(ctx context.Context) error { return r.listener.Off(ctx, in.id) })
	return errors.Join(err, mended)
}

// ensure returns how often the rule struck. A listener that was killed meanwhile has forgotten the rule. It then gets the rule again, and
// ensure returns an error, because the count begins at 0.
func (in *ruleInForce) ensure(ctx context.Context) (struck int, err error) {
	struck, err = in.listener.Struck(ctx, in.id)
	if errors.Is(err, local.ErrNoFault) {
		err = errors.Join(err, in.listener.On(ctx, in.id, in.rule))
	}
	return struck, err
}

// last keeps the rule in force for d, also when the listener is killed meanwhile.
func (in *ruleInForce) last(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := in.ensure(ctx); err != nil && ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, min(50*time.Millisecond, time.Until(end))); err != nil {
			return err
		}
	}
	return nil
}
