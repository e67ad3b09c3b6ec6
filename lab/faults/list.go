package faults

import (
	"context"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/local"
)

// Of returns the faults of a path, in the order of its hops.
func Of(p *local.Path) []*Fault {
	return []*Fault{
		{
			Name: "stop-postgres", Label: "Stop PostgreSQL", Hop: 2, Stops: true,
			State: "PostgreSQL stopped", Count: Count{"stop", "stops"},
			Text: "The server shuts down: requests are answered with an error, nothing new is promised, and what is on the stream already goes on to the bus.",
			AWS:  "While an RDS instance restarts, createCar answers 5xx and the alarm api-errors tells; cars, outbox and slot are on its disk, and walrelay connects again by itself.",
			act:  act{Can: p.CanBreakDatabase, Strike: p.StopDatabase, Mend: p.StartDatabase, InForce: p.DatabaseStopped},
		},
		{
			Name: "kill-relay", Label: "Kill the relay", Hop: 3, Stops: true,
			State: "Relay (walrelay) killed", Count: Count{"kill", "kills"},
			Text: "SIGKILL ends walrelay in the middle of whatever it does, and it stays down: commits go on, and wait in the WAL that the slot holds.",
			AWS:  "A walrelay that dies, or a DMS task that stops, leaves its slot behind: RDS keeps the WAL from its confirmed position on, 8 GiB of it in stage dev, and the alarm replication-slot-lag tells.",
			act:  killRelay(p),
		},
		{
			Name: "two-relays", Label: "Two relays", Hop: 3,
			State: "Second relay standing by", Count: Count{"start", "starts"},
			Text: "A second walrelay starts on the same slot and stands by; kill the relay then, and it takes over within seconds.",
			AWS:  "PostgreSQL lets one session read a slot, on RDS as here: a second walrelay in another availability zone stands by until the first one's session is gone.",
			act:  secondRelay(p),
		},
		{
			Name: "drop-slot", Label: "Drop the slot", Hop: 3,
			State: "Slot dropped", Count: Count{"slot dropped", "slots dropped"},
			Text: "The slot is dropped, and with it the position: the relay makes a new one and sends every retained row again, as duplicates with the same ids.",
			AWS:  "A slot is lost when it falls behind max_slot_wal_keep_size, and RDS wants it dropped before a major upgrade: walrelay then loads the retained rows, a DMS task has to be told to (reload-target).",
			act:  dropSlot(p),
		},
		{
			Name: "throttle-kinesis", Label: "Throttle Kinesis", Hop: 4,
			State: "Kinesis throttled", Count: Count{"record refused", "records refused"},
			Text: "Four of five records are refused with ProvisionedThroughputExceededException: the relay sends each again before the next one of its aggregate, and confirms no position behind it.",
			AWS:  "A shard takes 1,000 records or 1 MiB a second: beyond that PutRecords answers 200 and refuses single records, and the alarm stream-throttled tells.",
			act:  byRules(p, local.Kinesis, Rated(KinesisThrottled, 0.8)),
		},
		{
			Name: "poison", Label: "Poison record", Hop: 4,
			State: "Poison put", Count: Count{"record put", "records put"},
			Text: "A record that can never be an event is put on the stream: the consumer parks it in the failure queue, with its payload and the reason, and its successors go on.",
			AWS:  "Lambda delivers a failing record again until it is too old, and its shard waits behind it: so cdcConsumer parks in SQS what can never succeed, and the alarm parked-events tells.",
			act:  poison(p),
		},
		{
			Name: "queue-down", Label: "Failure queue down", Hop: 5,
			State: "Failure queue down", Count: Count{"message refused", "messages refused"},
			Text: "The failure queue refuses every message: poison that cannot be parked is not passed over, and its shard waits behind it.",
			AWS:  "Without sqs:SendMessage, or when SQS answers with errors, cdcConsumer returns the poison as failed: Lambda delivers from there again, and the alarm consumer-lag tells.",
			act:  byRules(p, local.SQS, QueueDown),
		},
		{
			Name: "fail-entries", Label: "Fail 30 % of entries", Hop: 6,
			State: "30 % of entries fail", Count: Count{"entry failed", "entries failed"},
			Text: "Three of ten entries of PutEvents fail with InternalFailure: the consumer sends those again, and no later event of their aggregate before them.",
			AWS:  "PutEvents answers 200 all the same: only FailedEntryCount and each entry's ErrorCode say what was not accepted, and who does not read them has lost it.",
			act:  byRules(p, local.EventBridge, Rated(EntriesFail, 0.3)),
		},
		{
			Name: "bus-down", Label: "EventBridge down", Hop: 6, Stops: true,
			State: "EventBridge down", Count: Count{"call refused", "calls refused"},
			Text: "Every PutEvents is answered with 503: the consumer says so, the poller delivers the same records again and again, and nothing is parked or skipped.",
			AWS:  "The consumer returns the lowest failed record, and Lambda delivers again from there, for 167 of the 168 hours that the stream keeps it; the alarm consumer-lag tells.",
			act:  byRules(p, local.EventBridge, BusDown),
		},
		{
			Name: "duplicate", Label: "Everything twice", Hop: 6,
			State: "Everything twice", Count: Count{"delivery or answer hit", "deliveries or answers hit"},
			Text: "The subscriber gets every event twice, and three of ten answers of PutEvents are lost, so that the consumer sends what the bus has already: the inbox suppresses what was counted.",
			AWS:  "EventBridge and SQS standard queues deliver at least once and in no order, and a call without an answer is made again: a subscriber has to know the ids that it has seen.",
			act:  byRules(p, local.EventBridge, Duplicates, Rated(BusAnswersLost, 0.3)),
		},
	}
}

// killRelay kills the relay that streams. Mend starts whichever of the two was killed.
func killRelay(p *local.Path) act {
	return act{
		Can: always,
		Strike: func(ctx context.Context) error {
			_, err := p.KillRelay(ctx)
			return err
		},
		Mend: func(context.Context) error {
			for _, relay := range []*local.Relay{p.Relay, p.SecondRelay} {
				if relay.Killed() {
					if err := relay.Start(); err != nil {
						return err
					}
				}
			}
			return nil
		},
		InForce: func() bool { return p.Relay.Killed() || p.SecondRelay.Killed() },
	}
}

func secondRelay(p *local.Path) act {
	return act{
		Can: always, Strike: p.StartSecondRelay,
		Mend: func(ctx context.Context) error { p.SecondRelay.Stop(ctx); return nil },
		// A second relay that kill-relay has killed still counts. It comes back when that fault is mended.
		InForce: func() bool { return p.SecondRelay.Running() || p.SecondRelay.Killed() },
	}
}

func dropSlot(p *local.Path) act {
	return act{Can: p.CanBreakDatabase, Strike: func(ctx context.Context) error { return p.DropSlot(ctx) }, InForce: never}
}

func poison(p *local.Path) act {
	return act{
		Can:     func() error { return p.CanBreak(local.Kinesis) },
		Strike:  func(ctx context.Context) error { return p.PutPoison(ctx, uuid.NewString()) },
		InForce: never,
	}
}
