package view

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// ledger knows of every committed event whether it has arrived: is on the bus, or parked. The table may have millions of rows and an outage
// may last for hours, so it keeps no row. It counts the rows of each second (of created_at), keeps the ids that arrived of a second only
// until that has all of its rows and all of them have arrived, and forgets it then: whatever comes of a forgotten second again is a
// duplicate. A relay that is down costs a number per second, and a shard that is blocked eight bytes per event that passes it.
//
// What arrived before this process began is in the bus's journal and in the subscriber's inbox: baseline begins with the rows that
// are in neither.
type ledger struct {
	begun      bool // the baseline is there; until then arrivals wait in early
	early      []arrival
	overflown  bool  // early was full: only a new baseline knows what has arrived
	final      int64 // seconds before it have all their rows: no transaction is open that began then
	settled    int64 // rows of the seconds that were forgotten
	seconds    map[int64]*second
	passed     int64 // of seconds before it nothing is in the WAL or on the stream any more
	parked     map[uint64]bool
	order      order
	duplicates int64
	outOfOrder int64
}

// second is one second of created_at that has, or may have, events on the way.
type second struct {
	rows int64
	here map[uint64]struct{} // ids that have arrived; also such that are no row
	want map[uint64]struct{} // of the baseline, instead: ids that have not
}

// arrival is an event that the bus, or the failure queue, has taken.
type arrival struct {
	id        uint64
	aggregate uint64
	version   int64
	second    int64
	at        time.Time
	parked    bool
}

// maxEarly is how many arrivals may wait for the baseline.
const maxEarly = 200_000

func newLedger() ledger {
	return ledger{seconds: map[int64]*second{}, parked: map[uint64]bool{}}
}

// short is an id in eight bytes. UUIDs are random in 62 bits of their second half.
func short(id uuid.UUID) uint64 {
	return binary.BigEndian.Uint64(id[:8])*0x9E3779B97F4A7C15 ^ binary.BigEndian.Uint64(id[8:])
}

func (s *second) missing() int64 {
	if s.want != nil {
		return int64(len(s.want))
	}
	return max(0, s.rows-int64(len(s.here)))
}

// take notes that an id is here, and tells whether it was not.
func (s *second) take(id uint64) bool {
	if s.want != nil {
		_, wanted := s.want[id]
		delete(s.want, id)
		return wanted
	}
	before := len(s.here)
	s.here[id] = struct{}{}
	return len(s.here) > before
}

// arrived tells whether an event has arrived for the first time.
func (l *ledger) arrived(a arrival) (first bool) {
	if !l.begun {
		if len(l.early) < maxEarly {
			l.early = append(l.early, a)
		} else {
			l.overflown = true
		}
		return true
	}
	s := l.seconds[a.second]
	switch {
	case s == nil && a.second < l.final:
	case s == nil:
		s = &second{here: map[uint64]struct{}{}}
		l.seconds[a.second] = s
		first = s.take(a.id)
	default:
		first = s.take(a.id)
		l.settle(a.second, s)
	}
	switch {
	case a.parked:
		if first {
			l.parked[a.id] = true
		}
		return first
	case l.parked[a.id]: // an operator has put it back
		delete(l.parked, a.id)
		first = true
	case !first:
		l.duplicates++
	}
	if first && !l.order.next(a.aggregate, a.version) {
		l.outOfOrder++
	}
	return first
}

// knows tells whether an event has arrived already.
func (l *ledger) knows(id uint64, at int64) bool {
	s := l.seconds[at]
	switch {
	case !l.begun:
		return false
	case s == nil:
		return at < l.final
	case s.want != nil:
		_, wanted := s.want[id]
		return !wanted
	}
	_, here := s.here[id]
	return here
}

// settle forgets a second of which all has arrived.
func (l *ledger) settle(at int64, s *second) {
	if at < l.final && s.missing() == 0 {
		l.settled += s.rows
		delete(l.seconds, at)
	}
}

// counted takes the rows of each second from l.final on, as they are now, and how far they are final now.
func (l *ledger) counted(rows map[int64]int64, final int64) {
	for at, n := range rows {
		s := l.seconds[at]
		if s == nil {
			s = &second{here: map[uint64]struct{}{}}
			l.seconds[at] = s
		}
		s.rows = n
	}
	for at, s := range l.seconds {
		if at >= l.final && rows[at] == 0 {
			s.rows = 0
		}
	}
	l.final = max(l.final, final)
	for at, s := range l.seconds {
		l.settle(at, s)
	}
}

// baseline is what a ledger begins with.
type baseline struct {
	before  time.Time // what arrived before is known; what came since is told
	final   int64
	rows    int64              // of seconds before final
	missing map[int64][]uint64 // those of them that have not arrived, by second
	here    map[int64][]uint64 // rows of later seconds that have
}

// begin starts the ledger, or starts it over.
func (l *ledger) begin(b baseline) {
	early, overflown := l.early, l.overflown
	l.seconds, l.early, l.overflown, l.final, l.settled, l.begun = map[int64]*second{}, nil, false, b.final, b.rows, true
	l.passed = 0 // a row that was found late has an old second and a young position in the WAL
	for at, ids := range b.missing {
		l.seconds[at] = &second{rows: int64(len(ids)), want: setOf(ids)}
		l.settled -= int64(len(ids))
	}
	for at, ids := range b.here {
		l.seconds[at] = &second{here: setOf(ids)}
	}
	for _, a := range early {
		if !a.at.Before(b.before) { // the journal has the others
			l.arrived(a)
		}
	}
	l.begun = !overflown
}

func setOf(ids []uint64) map[uint64]struct{} {
	set := make(map[uint64]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set
}

// seen tells whether there was a baseline before.
func (l *ledger) seen() bool { return l.final > 0 }

// restart lets arrivals wait for a new baseline.
func (l *ledger) restart() { l.begun = false }

// sums are the ledger's part of the totals.
func (l *ledger) sums() (committed, missing, lost, parked int64) {
	committed = l.settled
	for at, s := range l.seconds {
		n := s.missing()
		committed, missing = committed+s.rows, missing+n
		if at < l.passed {
			lost += n
		}
	}
	return committed, missing, lost, int64(len(l.parked))
}

// below is how many rows of seconds before final the ledger believes in.
func (l *ledger) below() int64 {
	n := l.settled
	for at, s := range l.seconds {
		if at < l.final {
			n += s.rows
		}
	}
	return n
}

// oldest is the second of the oldest event that has not arrived; false when all have.
func (l *ledger) oldest() (at int64, ok bool) {
	for candidate, s := range l.seconds {
		if s.missing() > 0 && (!ok || candidate < at) {
			at, ok = candidate, true
		}
	}
	return at, ok
}

// order sees first arrivals of an aggregate come in the order of their versions. It remembers the aggregates that were there lately: an
// event that comes later than a hundred thousand others is not seen to be out of order.
type order struct{ young, old map[uint64]int64 }

const maxOrder = 50_000

func (o *order) next(aggregate uint64, version int64) (inOrder bool) {
	highest, known := o.young[aggregate]
	if !known {
		highest = o.old[aggregate]
	}
	if len(o.young) >= maxOrder {
		o.old, o.young = o.young, nil
	}
	if o.young == nil {
		o.young = map[uint64]int64{}
	}
	o.young[aggregate] = max(highest, version)
	return version > highest
}
