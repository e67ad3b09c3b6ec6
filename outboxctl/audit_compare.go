package outboxctl

import (
	"iter"
	"time"
)

// comparison says how to judge.
type comparison struct {
	now   time.Time     // of the database, when its rows were read
	grace time.Duration // what is younger may still be on its way
	late  time.Duration
	limit int // events listed of each kind
}

// findings are the events of one kind.
type findings struct {
	Count  int       `json:"count"`
	Events []finding `json:"events"` // the first of them, in aggregate order; not null
}

// finding is one event that something is to be said about.
type finding struct {
	EventID          string     `json:"eventId"`
	AggregateType    string     `json:"aggregateType"`
	AggregateID      string     `json:"aggregateId"`
	AggregateVersion int64      `json:"aggregateVersion"`
	CreatedAt        time.Time  `json:"createdAt"`
	ArrivedAt        *time.Time `json:"arrivedAt,omitempty"` // the first time
	Copies           int        `json:"copies,omitempty"`
	// SlotPassed means that the slot has confirmed the missing event, so the relay will not send
	// it. OnStream is null when it is not known whether the stream has the event.
	SlotPassed bool  `json:"slotPassed,omitempty"`
	OnStream   *bool `json:"onStream,omitempty"`
}

// verdict is what a comparison found. Counts are of events, but for those of copies.
type verdict struct {
	Committed  int      `json:"committed"`  // rows
	OnBus      int      `json:"onBus"`      // of them
	Missing    findings `json:"missing"`    // of them, not on the bus
	Passed     int      `json:"slotPassed"` // of the missing, confirmed by the slot
	Pending    int      `json:"pending"`    // like missing or unknown, but younger than the grace
	Duplicates findings `json:"duplicates"` // further copies; Events has each event once
	Replayed   int      `json:"replayed"`   // copies with a replay marker: asked for, so no duplicates
	Late       findings `json:"late"`
	OutOfOrder findings `json:"outOfOrder"` // first on the bus after a later version of the aggregate was
	Unknown    findings `json:"unknown"`    // on the bus, not in the table
}

// arrivals are all copies of one event on the bus.
type arrivals struct {
	auditRow
	first           time.Time
	plain, replayed int
}

// compare merges both streams, each in its order, and holds no more than one event of each.
func compare(rows iter.Seq2[auditRow, error], entries iter.Seq2[busEntry, error], c comparison) (verdict, error) {
	v := verdict{}
	for _, list := range []*findings{&v.Missing, &v.Duplicates, &v.Late, &v.OutOfOrder, &v.Unknown} {
		list.Events = []finding{}
	}
	nextRow, stopRows := iter.Pull2(rows)
	defer stopRows()
	nextOnBus, stopOnBus := iter.Pull2(byEvent(entries))
	defer stopOnBus()
	var later latecomers
	row, rowErr, moreRows := nextRow()
	bus, busErr, moreOnBus := nextOnBus()
	for moreRows || moreOnBus {
		if rowErr != nil {
			return v, rowErr
		}
		if busErr != nil {
			return v, busErr
		}
		order := 0
		switch {
		case !moreOnBus:
			order = -1
		case !moreRows:
			order = 1
		default:
			order = row.order(bus.auditRow)
		}
		if order <= 0 {
			v.Committed++
		}
		if order >= 0 && later.is(bus) {
			v.OutOfOrder.add(c, bus)
		}
		switch young := c.now.Add(-c.grace); {
		case order < 0 && row.CreatedAt.After(young), order > 0 && bus.CreatedAt.After(young):
			v.Pending++
		case order < 0:
			v.Missing.add(c, arrivals{auditRow: row})
			if row.Passed {
				v.Passed++
			}
		case order > 0:
			v.Unknown.add(c, bus)
		default:
			v.arrived(c, bus)
		}
		if order <= 0 {
			row, rowErr, moreRows = nextRow()
		}
		if order >= 0 {
			bus, busErr, moreOnBus = nextOnBus()
		}
	}
	return v, nil
}

func (v *verdict) arrived(c comparison, bus arrivals) {
	v.OnBus++
	v.Replayed += bus.replayed
	if bus.plain > 1 {
		v.Duplicates.add(c, bus)
		v.Duplicates.Count += bus.plain - 2 // add has counted one
	}
	if bus.first.Sub(bus.CreatedAt) > c.late {
		v.Late.add(c, bus)
	}
}

func (f *findings) add(c comparison, a arrivals) {
	f.Count++
	if len(f.Events) >= c.limit {
		return
	}
	found := finding{
		EventID: a.EventID.String(), AggregateType: a.AggregateType, AggregateID: a.AggregateID, AggregateVersion: a.AggregateVersion,
		CreatedAt: a.CreatedAt, Copies: a.plain + a.replayed, SlotPassed: a.Passed,
	}
	if !a.first.IsZero() {
		found.ArrivedAt = &a.first
	}
	f.Events = append(f.Events, found)
}

// byEvent puts the sorted entries of one event together. What has one BusID and replay marker is one copy, however often the log has
// it.
func byEvent(entries iter.Seq2[busEntry, error]) iter.Seq2[arrivals, error] {
	return func(yield func(arrivals, error) bool) {
		var event arrivals
		seen := map[[2]string]bool{}
		for e, err := range entries {
			if err != nil {
				yield(arrivals{}, err)
				return
			}
			if len(seen) > 0 && e.row().order(event.auditRow) != 0 {
				if !yield(event, nil) {
					return
				}
				clear(seen)
			}
			if len(seen) == 0 {
				event = arrivals{auditRow: e.row(), first: e.Arrived}
			}
			if key := [2]string{e.BusID, e.Replay}; !seen[key] {
				seen[key] = true
				if e.Replay == "" {
					event.plain++
				} else {
					event.replayed++
				}
			}
		}
		if len(seen) > 0 {
			yield(event, nil)
		}
	}
}

// latecomers finds events that came after a later version of their aggregate. It sees each aggregate's newest version first.
type latecomers struct {
	kind, id    string
	version     int64
	same, later time.Time // when the first of this version, and of the versions after it, arrived
}

func (l *latecomers) is(a arrivals) bool {
	switch {
	case l.kind != a.AggregateType || l.id != a.AggregateID:
		*l = latecomers{kind: a.AggregateType, id: a.AggregateID, version: a.AggregateVersion}
	case l.version != a.AggregateVersion:
		l.version, l.later, l.same = a.AggregateVersion, earliest(l.later, l.same), time.Time{}
	}
	l.same = earliest(l.same, a.first)
	return !l.later.IsZero() && a.first.After(l.later)
}

// earliest takes a zero time for none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
