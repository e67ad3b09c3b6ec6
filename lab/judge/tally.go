package judge

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
)

// Counts are what a Tally knows. Committed = OnBus + Parked + OnTheWay + Lost.
type Counts struct {
	Committed  int64
	OnBus      int64 // of the committed
	Parked     int64 // committed, in the failure queue and not on the bus
	OnTheWay   int64 // committed, and somewhere before the bus
	Lost       int64 // committed, neither on the bus nor parked, and no longer held by anything before the bus
	Duplicates int64 // entries on the bus after an event's first
	OutOfOrder int64 // first entries on the bus after a higher version of their aggregate
}

// Tally counts what Judge judges while events still pass. It counts the events whose created_at is not before its start.
//
// The table may have millions of rows and an outage may last for hours, so a Tally keeps no row. It has the number of rows of each
// second of created_at, and the ids that arrived of a second only until that second has all its rows and all of them have arrived.
// Whatever comes of a forgotten second again is a duplicate. A relay that is down costs a number per second, and a shard that is
// blocked costs eight bytes per event that passes it.
//
// It counts rows and does not know their ids. An event on the bus without a row hides the loss of another one of the same second,
// and a row that is committed after its second was said to be complete is missed. Judge, which knows all rows, sees both.
//
// A Tally is safe for concurrent use.
type Tally struct {
	mu       sync.Mutex
	since    time.Time // zero until Begin
	youngest time.Time // created_at of the youngest event that arrived before Begin

	complete   int64 // seconds before it have all their rows
	settled    int64 // rows of the seconds that were forgotten
	seconds    map[int64]*second
	passed     int64 // of seconds before it nothing is before the bus any more
	parked     map[uint64]struct{}
	order      order[uint64]
	duplicates int64
	outOfOrder int64
}

// second is one second of created_at that has, or may have, events on the way.
type second struct {
	rows    int64
	arrived map[uint64]struct{} // ids. An event may arrive before its row is counted
}

func (s *second) missing() int64 { return max(0, s.rows-int64(len(s.arrived))) }

// NewTally returns a Tally that counts nothing before Begin.
func NewTally() *Tally {
	return &Tally{seconds: map[int64]*second{}, parked: map[uint64]struct{}{}, order: order[uint64]{limit: maxOrder}}
}

// Begin starts to count the events that are created at since, by the database's clock, or later. An event that arrived before Begin
// does not count, nor does any older one, because its row would be missed for ever.
func (t *Tally) Begin(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = since
	if !t.youngest.Before(since) {
		t.since = t.youngest.Add(time.Microsecond)
	}
	t.complete = t.since.Unix()
}

// Uncounted returns the created_at from which on Committed needs the table's rows.
func (t *Tally) Uncounted() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from := time.Unix(t.complete, 0); from.After(t.since) {
		return from
	}
	return t.since
}

// Committed takes the rows of each second of created_at from Uncounted on, as they are now. Seconds before complete have all their rows,
// because no transaction that began then is still open.
func (t *Tally) Committed(rows map[int64]int64, complete int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, s := range t.seconds {
		if at >= t.complete {
			s.rows = rows[at]
		}
	}
	for at, n := range rows {
		t.second(at).rows = n
	}
	t.complete = max(t.complete, complete)
	for at, s := range t.seconds {
		t.settle(at, s)
	}
}

func (t *Tally) second(at int64) *second {
	s := t.seconds[at]
	if s == nil {
		s = &second{arrived: map[uint64]struct{}{}}
		t.seconds[at] = s
	}
	return s
}

// settle forgets a second of which all has arrived.
func (t *Tally) settle(at int64, s *second) {
	if at < t.complete && s.missing() == 0 {
		t.settled += s.rows
		delete(t.seconds, at)
	}
}

// Arrived takes an entry that the bus has accepted, in the bus's order, and reports whether it is its event's first. The id is
// uuid.Nil if the entry is not an event.
func (t *Tally) Arrived(entry awslocal.BusEvent) (id uuid.UUID, first bool) {
	var d struct {
		EventID                    uuid.UUID
		AggregateType, AggregateID string
		AggregateVersion           int64
		Timestamp                  time.Time // created_at
	}
	if json.Unmarshal(entry.Detail, &d) != nil || d.EventID == uuid.Nil {
		return uuid.Nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.counts(d.Timestamp) {
		return d.EventID, false
	}
	key := hash(d.EventID)
	first = t.take(key, d.Timestamp.Unix())
	if _, parked := t.parked[key]; parked { // an operator has put it back
		delete(t.parked, key)
		first = true
	}
	if !first {
		t.duplicates++
		return d.EventID, false
	}
	if _, inOrder := t.order.next(hash([2]string{d.AggregateType, d.AggregateID}), d.AggregateVersion); !inOrder {
		t.outOfOrder++
	}
	return d.EventID, true
}

// Parked takes an event that the failure queue has accepted. What is parked counts as neither on the way nor lost.
func (t *Tally) Parked(id uuid.UUID, createdAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts(createdAt) && t.take(hash(id), createdAt.Unix()) {
		t.parked[hash(id)] = struct{}{}
	}
}

// counts reports whether an event counts. Before Begin it notes the ones that do not.
func (t *Tally) counts(createdAt time.Time) bool {
	if t.since.IsZero() {
		if createdAt.After(t.youngest) {
			t.youngest = createdAt
		}
		return false
	}
	return !createdAt.Before(t.since)
}

// take notes that an event is past the stream, and reports whether that is new.
func (t *Tally) take(key uint64, at int64) bool {
	if t.seconds[at] == nil && at < t.complete {
		return false // of a forgotten second
	}
	s := t.second(at)
	before := len(s.arrived)
	s.arrived[key] = struct{}{}
	isNew := len(s.arrived) > before
	t.settle(at, s)
	return isNew
}

// Passed tells the Tally that nothing holds events of seconds before at any more. The slot is confirmed past them, and the shards are read
// past them. Events of these seconds that are missing are lost.
func (t *Tally) Passed(at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passed = max(t.passed, at)
}

// Complete is the second before which all seconds have all their rows.
func (t *Tally) Complete() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.complete
}

// HasArrived reports whether an event counts, and is on the bus or parked.
func (t *Tally) HasArrived(id uuid.UUID, createdAt time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if createdAt.Before(t.since) {
		return false
	}
	s := t.seconds[createdAt.Unix()]
	if s == nil {
		return createdAt.Unix() < t.complete
	}
	_, arrived := s.arrived[hash(id)]
	return arrived
}

// OldestMissing returns the second of the oldest event that is missing on the bus, or false if none is.
func (t *Tally) OldestMissing() (at int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for candidate, s := range t.seconds {
		if s.missing() > 0 && (!ok || candidate < at) {
			at, ok = candidate, true
		}
	}
	return at, ok
}

// Counts returns the counts as of now, but for Committed, which is as of the last call of that name.
func (t *Tally) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Counts{Committed: t.settled, Parked: int64(len(t.parked)), Duplicates: t.duplicates, OutOfOrder: t.outOfOrder}
	for at, s := range t.seconds {
		c.Committed += s.rows
		if at < t.passed {
			c.Lost += s.missing()
		} else {
			c.OnTheWay += s.missing()
		}
	}
	// An event may arrive before its row is counted.
	c.OnBus = max(0, c.Committed-c.OnTheWay-c.Lost-c.Parked)
	return c
}
