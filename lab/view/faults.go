package view

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
)

// fault is how a switch breaks and mends.
type fault interface {
	// can says why it cannot be switched on in this set-up.
	can(s *local.Path) error
	// strike breaks; once-switches have struck when it returns.
	strike(ctx context.Context, s *local.Path) error
	mend(ctx context.Context, s *local.Path) error
	// on tells whether the fault is in force, and how often it struck since it was switched on, or -1: count the strikes.
	on(s *local.Path) (on bool, struck int)
}

// serviceFaults are rules of the local AWS listener.
type serviceFaults struct {
	service local.Service
	rules   []awslocal.Fault

	mu     sync.Mutex
	active []*awslocal.Active
}

func onService(service local.Service, rules ...awslocal.Fault) func() fault {
	return func() fault { return &serviceFaults{service: service, rules: rules} }
}

func (f *serviceFaults) can(s *local.Path) error { return s.CanBreak(f.service) }

func (f *serviceFaults) strike(_ context.Context, s *local.Path) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = nil
	for _, rule := range f.rules {
		f.active = append(f.active, s.AWS.Faults().Add(rule))
	}
	return nil
}

func (f *serviceFaults) mend(context.Context, *local.Path) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, active := range f.active {
		active.Off()
	}
	return nil
}

func (f *serviceFaults) on(s *local.Path) (on bool, struck int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.active) == 0 {
		return false, 0
	}
	inForce := s.AWS.Faults().List()
	for _, active := range f.active {
		on = on || slices.Contains(inForce, active)
		struck += active.Struck()
	}
	return on, struck
}

// machineFault is what is done to a process, or to what it holds.
type machineFault struct {
	needs  func(*local.Path) error
	do     func(context.Context, *local.Path) error
	undo   func(context.Context, *local.Path) error // nil: it strikes once
	exists func(*local.Path) bool                   // nil: as undo
}

func onMachine(f machineFault) func() fault { return func() fault { return f } }

func (f machineFault) can(s *local.Path) error {
	if f.needs == nil {
		return nil
	}
	return f.needs(s)
}

func (f machineFault) strike(ctx context.Context, s *local.Path) error { return f.do(ctx, s) }
func (f machineFault) mend(ctx context.Context, s *local.Path) error   { return f.undo(ctx, s) }

func (f machineFault) on(s *local.Path) (bool, int) { return f.exists != nil && f.exists(s), -1 }

// faults are the switches' faults by name.
var faults = map[string]func() fault{
	"kill-relay": onMachine(machineFault{
		do: func(ctx context.Context, s *local.Path) error {
			if _, err := s.KillRelay(ctx); err != nil {
				return conflict(err.Error())
			}
			return nil
		},
		undo: func(_ context.Context, s *local.Path) error {
			for _, relay := range []*local.Relay{s.Relay, s.SecondRelay} {
				if relay.Killed() {
					if err := relay.Start(); err != nil {
						return err
					}
				}
			}
			return nil
		},
		exists: func(s *local.Path) bool { return s.Relay.Killed() || s.SecondRelay.Killed() },
	}),
	"stop-postgres": onMachine(machineFault{
		needs:  (*local.Path).CanBreakDatabase,
		do:     func(ctx context.Context, s *local.Path) error { return s.StopDatabase(ctx) },
		undo:   func(ctx context.Context, s *local.Path) error { return s.StartDatabase(ctx) },
		exists: (*local.Path).DatabaseStopped,
	}),
	"throttle-kinesis": onService(local.Kinesis, awslocal.Fault{
		Service: "kinesis", Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Rate: 0.8, Seed: 1,
	}),
	"fail-entries": onService(local.EventBridge, awslocal.Fault{
		Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.3, Seed: 2,
	}),
	"bus-down": onService(local.EventBridge, awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: 503}),
	"drop-slot": onMachine(machineFault{
		needs: (*local.Path).CanBreakDatabase,
		do: func(ctx context.Context, s *local.Path) error {
			if s.DatabaseStopped() {
				return conflict("PostgreSQL is stopped: start it first")
			}
			// Where a relay is down and has made no slot yet, there is none, and nobody will make one.
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			err := s.DropSlot(ctx)
			if errors.Is(err, local.ErrNoSlot) {
				return conflict(err.Error())
			}
			return err
		},
	}),
	"poison": onMachine(machineFault{
		needs: func(s *local.Path) error { return s.CanBreak(local.Kinesis) },
		do:    func(ctx context.Context, s *local.Path) error { return s.PutPoison(ctx, uuid.NewString()) },
	}),
	"queue-down": onService(local.SQS, awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.CallError, Status: 503}),
	// The second rule is hop 6 itself: accepted, and the answer does not arrive, so that the consumer sends again what is there.
	"duplicate": onService(local.EventBridge,
		awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Delay: time.Second, Seed: 3},
		awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Rate: 0.3, Seed: 5},
	),
	"two-relays": onMachine(machineFault{
		do: func(ctx context.Context, s *local.Path) error {
			if s.DatabaseStopped() {
				return conflict("PostgreSQL is stopped: the second relay could not even stand by")
			}
			return s.StartSecondRelay(ctx)
		},
		undo: func(ctx context.Context, s *local.Path) error { s.SecondRelay.Stop(ctx); return nil },
		// There are two as well while kill-relay has killed the second: it comes back with that switch.
		exists: func(s *local.Path) bool { return s.SecondRelay.Running() || s.SecondRelay.Killed() },
	}),
}

// definitions are in the order of the path.
var definitions = []switchDefinition{
	{
		Name: "stop-postgres", Label: "Stop PostgreSQL", Hop: 2, Kind: kindToggle,
		Text: "The server shuts down: requests are answered with an error, nothing new is promised, and what is on the stream already goes on to the bus.",
		AWS:  "While an RDS instance restarts, createCar answers 5xx and the alarm api-errors tells; cars, outbox and slot are on its disk, and walrelay connects again by itself.",
	},
	{
		Name: "kill-relay", Label: "Kill the relay", Hop: 3, Kind: kindToggle,
		Text: "SIGKILL ends walrelay in the middle of whatever it does, and it stays down: commits go on, and wait in the WAL that the slot holds.",
		AWS:  "A walrelay that dies, or a DMS task that stops, leaves its slot behind: RDS keeps the WAL from its confirmed position on, 8 GiB of it in stage dev, and the alarm replication-slot-lag tells.",
	},
	{
		Name: "two-relays", Label: "Two relays", Hop: 3, Kind: kindToggle,
		Text: "A second walrelay starts on the same slot and stands by; kill the relay then, and it takes over within seconds.",
		AWS:  "PostgreSQL lets one session read a slot, on RDS as here: a second walrelay in another availability zone stands by until the first one's session is gone.",
	},
	{
		Name: "drop-slot", Label: "Drop the slot", Hop: 3, Kind: kindOnce,
		Text: "The slot is dropped, and with it the position: the relay makes a new one and sends every retained row again, as duplicates with the same ids.",
		AWS:  "A slot is lost when it falls behind max_slot_wal_keep_size, and RDS wants it dropped before a major upgrade: walrelay then loads the retained rows, a DMS task has to be told to (reload-target).",
	},
	{
		Name: "throttle-kinesis", Label: "Throttle Kinesis", Hop: 4, Kind: kindToggle,
		Text: "Four of five records are refused with ProvisionedThroughputExceededException: the relay sends each again before the next one of its aggregate, and confirms no position behind it.",
		AWS:  "A shard takes 1,000 records or 1 MiB a second: beyond that PutRecords answers 200 and refuses single records, and the alarm stream-throttled tells.",
	},
	{
		Name: "poison", Label: "Poison record", Hop: 4, Kind: kindOnce,
		Text: "A record that can never be an event is put on the stream: the consumer parks it in the failure queue, with its payload and the reason, and its successors go on.",
		AWS:  "Lambda delivers a failing record again until it is too old, and its shard waits behind it: so cdcConsumer parks in SQS what can never succeed, and the alarm parked-events tells.",
	},
	{
		Name: "queue-down", Label: "Failure queue down", Hop: 5, Kind: kindToggle,
		Text: "The failure queue refuses every message: poison that cannot be parked is not passed over, and its shard waits behind it.",
		AWS:  "Without sqs:SendMessage, or when SQS answers with errors, cdcConsumer returns the poison as failed: Lambda delivers from there again, and the alarm consumer-lag tells.",
	},
	{
		Name: "fail-entries", Label: "Fail 30 % of entries", Hop: 6, Kind: kindToggle,
		Text: "Three of ten entries of PutEvents fail with InternalFailure: the consumer sends those again, and no later event of their aggregate before them.",
		AWS:  "PutEvents answers 200 all the same: only FailedEntryCount and each entry's ErrorCode say what was not accepted, and who does not read them has lost it.",
	},
	{
		Name: "bus-down", Label: "EventBridge down", Hop: 6, Kind: kindToggle,
		Text: "Every PutEvents is answered with 503: the consumer says so, the poller delivers the same records again and again, and nothing is parked or skipped.",
		AWS:  "The consumer returns the lowest failed record, and Lambda delivers again from there, for 167 of the 168 hours that the stream keeps it; the alarm consumer-lag tells.",
	},
	{
		Name: "duplicate", Label: "Everything twice", Hop: 6, Kind: kindToggle,
		Text: "The subscriber gets every event twice, and three of ten answers of PutEvents are lost, so that the consumer sends what the bus has already: the inbox suppresses what was counted.",
		AWS:  "EventBridge and SQS standard queues deliver at least once and in no order, and a call without an answer is made again: a subscriber has to know the ids that it has seen.",
	},
}
