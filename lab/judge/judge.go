// Package judge holds traffic against the promise. Every committed event arrives on the bus, right and in order, and nothing else
// does. It is the only code of lab that says lost, duplicate or out of order.
//
// Judge is exact and judges one round at its end. It takes what the clients were told, what the tables hold after everything has
// settled, what arrived on the bus and what is parked in the failure queue, and returns a Verdict with counts and violations. Tally
// counts while events pass, in bounded memory. Of the same history both say the same.
//
// The package shares no code with the path. It states the contract of the bus entry and of the parked record again.
package judge

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
)

// Answer is what a client knows about its request.
type Answer string

// The answers. Maybe leaves it open, because the change may have been committed before the answer was lost.
const (
	Done    Answer = "done"    // 2xx
	Refused Answer = "refused" // 4xx
	Maybe   Answer = "maybe"   // 5xx, or no answer at all
)

// What a Request asked for.
const (
	Create = "create"
	Update = "update"
)

// Request is one HTTP request of a client.
type Request struct {
	Op     string // Create or Update
	CarID  string // of an update, or of a create after its 201
	Token  string // a text that this request sets and no other (domain.Token)
	Answer Answer
	Car    json.RawMessage // the car of a 2xx answer
	Span   Span
}

// Span is when an operation was under way, as numbers of the round's Moments, which count from 1. 0
// means that the time is not known. It stands for the beginning or the end of the round.
type Span struct{ Began, Ended int }

// What became of a Written event's transaction.
const (
	Committed   = "committed"
	RolledBack  = "rolled-back"
	MaybeCommit = "maybe" // the commit was not answered
)

// Written is an event that was written beside the API, in a transaction of its own.
type Written struct {
	EventID uuid.UUID
	Outcome string // Committed, RolledBack or MaybeCommit
	Span    Span
}

// Poison is a record or an event that must end in the failure queue.
type Poison struct {
	Payload []byte // of a raw record put on the stream, unlike any other of the round, or nil for an event
	Token   string // a word in the data of the refused event and of no other
}

// Row is a row of outbox.
type Row struct {
	ID            uuid.UUID
	AggregateType string
	AggregateID   string
	Version       int64
	EventType     string
	Data          json.RawMessage
	Traceparent   *string
	CreatedAt     time.Time
}

// Car is a row of cars.
type Car struct {
	ID      uuid.UUID
	Version int64
	State   json.RawMessage // as domain.Rows reads it
}

// Stat is a row of car_stats, the totals of the example subscriber.
type Stat struct {
	Kind          string // as of domain.Kind
	Cars, Changes int64
}

// Refusal is how far the slot was confirmed when a relay ended on a change that a person has to
// mend.
type Refusal struct {
	EventID   uuid.UUID // committed before the change
	Sessions  int       // that ended on the change
	Confirmed bool      // the slot is confirmed past the event
}

// Window is one struck fault, from the strike until it was taken away or mended.
type Window struct {
	Kind       string
	Start, End time.Time
}

// Promotion is a standby that took the primary's place.
type Promotion struct{ SlotKept bool } // the new primary had the relay's slot at once

// MaxDuplicates is how many duplicates of a promotion still differ from a load of the table. It bounds no relay, because all that was
// sent since the standby last synchronized the slot comes again.
const MaxDuplicates = 10_000

// Round is all that is known about one round. Rows, Cars and Stats are only what this round wrote.
type Round struct {
	Requests   []Request
	Written    []Written
	Poison     []Poison
	Windows    []Window
	Refusals   []Refusal
	Promotions []Promotion
	Rows       []Row
	Cars       []Car
	Stats      []Stat
	// InOrder reports whether the subscriber counts no event before the ones before it.
	InOrder bool
	// Replay is the marker of replays that were made in the rounds so far, or empty. A copy may have it, and the first arrival may not.
	Replay string
	// NotCounted means that no subscriber's totals were read, so Stats is empty and says nothing.
	NotCounted bool
	Arrivals   []awslocal.BusEvent // in the order of the bus's journal, since the round began
	// Moments are the times when a client sent something or was answered, in order, each with the number of Arrivals that the bus certainly
	// had by then.
	Moments []int
	Parked  [][]byte // bodies of the failure queue's messages, since the round began
	// Earlier knows the earlier rounds. A late duplicate of one of their events is allowed if its EntryText is that of the first arrival. A
	// poison record of theirs may be parked a second time.
	Earlier Memory
}

// MinInFlight is how many versions of one aggregate must be on their way at one moment of a fault for the aggregate to be hot. With fewer, a
// path that reorders would have little to reorder.
const MinInFlight = 10

// The rules. Each Violation names one.
const (
	RuleLost        = "lost"         // a committed event is not on the bus
	RulePoisonLost  = "poison-lost"  // poison is not in the failure queue
	RulePromisedCar = "promised-car" // a car of a 2xx answer is not in the table
	RuleUpdateLost  = "update-lost"  // a change that was answered with 2xx, or a commit that was answered, has no event

	RuleReordered = "reordered" // a version arrived after a higher one

	RuleRolledBack       = "rolled-back"       // an event of a rolled-back transaction is in the table or on the bus
	RuleUnknown          = "unknown"           // an event on the bus was never committed
	RuleContract         = "contract"          // an entry is not what its row calls for
	RuleDuplicateDiffers = "duplicate-differs" // a duplicate is not identical to the first arrival
	RuleCarEvent         = "car-event"         // car, events and answers disagree
	RuleWrittenTwice     = "written-twice"     // one request has several events
	RuleRefusedWritten   = "refused-written"   // a request that was answered with 4xx has an event
	RulePoisonPayload    = "poison-payload"    // poison is parked without its whole payload
	RulePoisonPublished  = "poison-published"  // the bus has an event that it should have refused
	RuleParked           = "parked"            // something is parked that is no poison
	RuleCarStats         = "car-stats"         // the subscriber's totals are not those of the table
	RuleReloaded         = "reloaded"          // a promotion made the relay send what was on the stream long before
	RuleStuck            = "stuck"             // what was sent before a change that the relay refuses is sent again by each session
)

// Violation is one broken promise.
type Violation struct {
	Rule string `json:"rule"` // one of the Rule constants
	Text string `json:"text"`
}

// Recovery is how long after a fault's end the path brought something new.
type Recovery struct {
	Kind string
	// Took is from Window.End to the arrival of the first event that was created afterwards.
	Took time.Duration
	// It is absent if no event was created afterwards, or none arrived.
	Absent bool
}

// Verdict is what the judge found. Lost, Reordered and Wrong add up to the number of Violations.
type Verdict struct {
	Events     int // rows of outbox
	Lost       int // what should be somewhere and is not: RuleLost, RulePoisonLost, RulePromisedCar, RuleUpdateLost
	Reordered  int
	Wrong      int // all other violations
	Duplicates int // arrivals after an event's first
	Parked     int // poison that was found in the failure queue
	Hot        int // cars with MinInFlight versions on their way at one moment of a fault
	Recoveries []Recovery
	LongestGap time.Duration // between two arrivals
	Violations []Violation
}

func (v *Verdict) violation(rule, format string, args ...any) {
	switch rule {
	case RuleLost, RulePoisonLost, RulePromisedCar, RuleUpdateLost:
		v.Lost++
	case RuleReordered:
		v.Reordered++
	default:
		v.Wrong++
	}
	v.Violations = append(v.Violations, Violation{Rule: rule, Text: fmt.Sprintf(format, args...)})
}

// event is a row and what became of it.
type event struct {
	Row
	poison     bool
	rolledBack bool
	first      *awslocal.BusEvent // nil if it is not on the bus
	parked     bool
}

func (e *event) String() string {
	return fmt.Sprintf("event %s (%s %s version %d)", e.ID, e.AggregateType, e.AggregateID, e.Version)
}

// trial is one round being judged.
type trial struct {
	Round
	Verdict
	events []*event // by aggregate type, id and version
	byID   map[uuid.UUID]*event
	// fates of Written, without the API's events.
	fates map[uuid.UUID]string
}

// Judge judges a round. With n rows, arrivals and requests it takes O(n log n) time, and O(n) per poison and fault.
func Judge(r Round) Verdict {
	t := &trial{Round: r, byID: make(map[uuid.UUID]*event, len(r.Rows)), fates: map[uuid.UUID]string{}}
	t.Events = len(r.Rows)
	t.index()
	t.judgeWritten()
	t.judgeArrivals()
	t.judgeParked()
	t.judgeDelivery()
	t.judgeRequests()
	t.judgeCars()
	t.judgeStats()
	t.judgeRefusals()
	t.judgePromotions()
	t.measure()
	return t.Verdict
}

func (t *trial) index() {
	for _, w := range t.Written {
		t.fates[w.EventID] = w.Outcome
	}
	for _, row := range t.Rows {
		e := &event{Row: row, poison: t.isPoison(row), rolledBack: t.fates[row.ID] == RolledBack}
		t.events, t.byID[row.ID] = append(t.events, e), e
	}
	slices.SortFunc(t.events, func(a, b *event) int {
		return cmp.Or(compareAggregates(a, b), cmp.Compare(a.Version, b.Version))
	})
}

func compareAggregates(a, b *event) int {
	return cmp.Or(cmp.Compare(a.AggregateType, b.AggregateType), cmp.Compare(a.AggregateID, b.AggregateID))
}

// aggregates calls fn with the events of each aggregate, in version order.
func (t *trial) aggregates(fn func([]*event)) {
	for rest := t.events; len(rest) > 0; {
		n := 1
		for n < len(rest) && compareAggregates(rest[0], rest[n]) == 0 {
			n++
		}
		fn(rest[:n])
		rest = rest[n:]
	}
}
