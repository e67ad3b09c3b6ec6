package sim

import "math/rand/v2"

// The kinds, in the order in which an event meets them. A run that a person reads names them.
const (
	KillRelay         Kind = "kill-relay"
	KillBeforePut     Kind = "kill-relay-before-put"     // the call never arrives
	KillAfterPut      Kind = "kill-relay-after-put"      // its records are on the stream
	KillBeforeConfirm Kind = "kill-relay-before-confirm" // the position never arrives
	KillAfterConfirm  Kind = "kill-relay-after-confirm"
	CutRelay          Kind = "cut-relay"   // its connections to the server
	DropSlot          Kind = "drop-slot"   // so that the next session loads
	Publication       Kind = "publication" // leaves an insert out, and is mended before the relay looks again
	Broken            Kind = "broken-wal"  // a row that cannot be decoded, until the slot is dropped

	RefuseRecords Kind = "refuse-records" // some of a call
	ThrottlePut   Kind = "throttle-put"   // the whole call
	DenyPut       Kind = "deny-put"       // by a permission
	ResetPut      Kind = "reset-put"      // before or after its records are on the stream
	LosePut       Kind = "lose-put"       // its answer never comes
	LatePut       Kind = "late-put"       // it arrives after the relay has given it up
	SlowPut       Kind = "slow-put"

	PoisonRecord  Kind = "poison-record" // somebody else's record
	PoisonEvent   Kind = "poison-event"  // the bus refuses its content
	FailBatch     Kind = "fail-batch"    // Lambda does not even begin
	Again         Kind = "deliver-again" // the answer to a batch is lost
	KillBeforeBus Kind = "kill-consumer-before-publish"
	KillAfterBus  Kind = "kill-consumer-after-publish"
	KillPark      Kind = "kill-consumer-after-park"
	RefuseEntries Kind = "refuse-entries" // some of a call
	FailEvents    Kind = "fail-events"    // the whole call
	LoseEvents    Kind = "lose-events"    // its answer never comes
	LateEvents    Kind = "late-events"    // it arrives after the consumer has given it up
	SlowEvents    Kind = "slow-events"
	FailPark      Kind = "fail-park"
	LosePark      Kind = "lose-park" // the message is in the queue
)

// weights says how often a kind is drawn. What makes the relay load, or ends it, hides other faults.
var weights = []struct {
	kind   Kind
	weight int
}{
	{KillRelay, 2}, {KillBeforePut, 3}, {KillAfterPut, 3}, {KillBeforeConfirm, 3}, {KillAfterConfirm, 6}, {CutRelay, 3},
	{DropSlot, 2}, {Publication, 3}, {Broken, 3},
	{RefuseRecords, 20}, {ThrottlePut, 5}, {DenyPut, 2}, {ResetPut, 5}, {LosePut, 3}, {LatePut, 3}, {SlowPut, 5},
	{PoisonRecord, 4}, {PoisonEvent, 4}, {FailBatch, 5}, {Again, 6}, {KillBeforeBus, 3}, {KillAfterBus, 3}, {KillPark, 2},
	{RefuseEntries, 20}, {FailEvents, 5}, {LoseEvents, 3}, {LateEvents, 3}, {SlowEvents, 5}, {FailPark, 4}, {LosePark, 2},
}

func drawKind(random *rand.Rand) Kind {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	n := random.IntN(total)
	for _, w := range weights {
		if n -= w.weight; n < 0 {
			return w.kind
		}
	}
	panic("sim: the weights changed")
}
