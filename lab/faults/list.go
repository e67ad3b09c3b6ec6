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
			Text: "The server shuts down. Requests are answered with an error, so nothing new is promised. Records that are already on the stream still reach the bus.",
			AWS:  "While an RDS instance restarts, createCar answers 5xx, and the alarm api-errors goes off. Cars, outbox and slot are on the instance's disk. walrelay connects again by itself.",
			act:  act{Can: p.CanBreakDatabase, Strike: p.StopDatabase, Mend: p.StartDatabase, InForce: p.DatabaseStopped},
		},
		{
			Name: "kill-relay", Label: "Kill the relay", Hop: 3, Stops: true,
			State: "Relay (walrelay) killed", Count: Count{"kill", "kills"},
			Text: "SIGKILL ends walrelay in the middle of whatever it does, and it stays down. Commits go on, and their events wait in the WAL that the slot retains.",
			AWS:  "A walrelay that dies, or a DMS task that stops, leaves its slot behind. RDS keeps the WAL from the slot's confirmed position on, up to 8 GiB in stage dev. The alarm walrelay-silent goes off, or for a DMS task its stack's alarms.",
			act:  killRelay(p),
		},
		{
			Name: "two-relays", Label: "Two relays", Hop: 3,
			State: "Second relay standing by", Count: Count{"start", "starts"},
			Text: "A second walrelay starts on the same slot and stands by. If you then kill the first one, the second takes over within seconds.",
			AWS:  "PostgreSQL lets only one session read a slot, on RDS as here. A second walrelay in another availability zone stands by until the first one's session is gone.",
			act:  secondRelay(p),
		},
		{
			Name: "drop-slot", Label: "Drop the slot", Hop: 3,
			State: "Slot dropped", Count: Count{"slot dropped", "slots dropped"},
			Text: "The slot is dropped, and the position with it. The relay makes a new slot and sends every retained row again, as duplicates with the same ids.",
			AWS:  "A slot is lost when it falls behind max_slot_wal_keep_size, and RDS wants it dropped before a major upgrade. walrelay then loads the retained rows by itself. A DMS task has to be started with reload-target.",
			act:  dropSlot(p),
		},
		{
			Name: "throttle-kinesis", Label: "Throttle Kinesis", Hop: 4,
			State: "Kinesis throttled", Count: Count{"record refused", "records refused"},
			Text: "Four of five records are refused with ProvisionedThroughputExceededException. The relay sends each of them again before the next one of its aggregate, and confirms no later position until then.",
			AWS:  "A shard takes 1,000 records or 1 MiB a second. Beyond that PutRecords answers 200 and refuses single records, and the alarm stream-throttled goes off.",
			act:  byRules(p, local.Kinesis, Rated(KinesisThrottled, 0.8)),
		},
		{
			Name: "poison", Label: "Poison record", Hop: 4,
			State: "Poison put", Count: Count{"record put", "records put"},
			Text: "A record that can never be an event is put on the stream. The consumer parks it in the failure queue, with its payload and the reason, and the records after it go on.",
			AWS:  "Lambda delivers a failing record again until it is too old, and its shard waits behind it. So cdcConsumer parks a record that can never succeed in SQS, and the alarm parked-events goes off.",
			act:  poison(p),
		},
		{
			Name: "queue-down", Label: "Failure queue down", Hop: 5,
			State: "Failure queue down", Count: Count{"message refused", "messages refused"},
			Text: "The failure queue refuses every message. Poison that cannot be parked is not passed over, so its shard waits behind it.",
			AWS:  "Without sqs:SendMessage, or when SQS answers with errors, cdcConsumer returns the poison as failed. Lambda delivers from that record on again, and the alarm consumer-lag goes off.",
			act:  byRules(p, local.SQS, QueueDown),
		},
		{
			Name: "fail-entries", Label: "Fail 30 % of entries", Hop: 6,
			State: "30 % of entries fail", Count: Count{"entry failed", "entries failed"},
			Text: "Three of ten entries of PutEvents fail with InternalFailure. The consumer sends those again, and sends no later event of their aggregate before them.",
			AWS:  "PutEvents still answers 200. Only FailedEntryCount and each entry's ErrorCode say which entries were not accepted. A program that does not read them loses these events.",
			act:  byRules(p, local.EventBridge, Rated(EntriesFail, 0.3)),
		},
		{
			Name: "bus-down", Label: "EventBridge down", Hop: 6, Stops: true,
			State: "EventBridge down", Count: Count{"call refused", "calls refused"},
			Text: "Every PutEvents is answered with 503. The consumer reports the failure, the poller delivers the same records again and again, and nothing is parked or skipped.",
			AWS:  "The consumer returns the lowest failed record, and Lambda delivers from there again, for 167 of the 168 hours that the stream keeps it. The alarm consumer-lag goes off.",
			act:  byRules(p, local.EventBridge, BusDown),
		},
		{
			Name: "duplicate", Label: "Everything twice", Hop: 6,
			State: "Everything twice", Count: Count{"delivery or answer hit", "deliveries or answers hit"},
			Text: "The subscriber gets every event twice. Three of ten answers of PutEvents are lost, so the consumer sends events that the bus already has. The inbox suppresses those that were counted.",
			AWS:  "EventBridge and SQS standard queues deliver at least once and in no order, and a call without an answer is made again. So a subscriber has to know the ids that it has seen.",
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
