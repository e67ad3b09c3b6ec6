package outboxctl

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// eventKey has the members by which an entry of the bus is a row's event. The id alone is not enough, because an
// entry with another version would come in the wrong place of its aggregate's order.
type eventKey struct {
	EventID          uuid.UUID
	AggregateType    string
	AggregateID      string
	AggregateVersion int64
}

// auditRow is what an audit looks at of a row of outbox.
type auditRow struct {
	eventKey
	CreatedAt time.Time
	Passed    bool // by the slot, see confirmedBySlot
}

// auditedEvent is a row, the copies of it on the bus, or both.
type auditedEvent struct {
	auditRow
	committed bool      // there is a row
	first     time.Time // when the first copy arrived, or zero without a copy
	copies    []busCopy
}

// busCopy is one copy of an event. The log may have it more than once.
type busCopy struct{ busID, replay string }

// order is the order of the report, by aggregate, with the newest version of each first. So at every event it is
// known when later versions arrived.
func (e *auditedEvent) order(other *auditedEvent) int {
	return cmp.Or(
		cmp.Compare(e.AggregateType, other.AggregateType),
		cmp.Compare(e.AggregateID, other.AggregateID),
		cmp.Compare(other.AggregateVersion, e.AggregateVersion),
		slices.Compare(e.EventID[:], other.EventID[:]),
	)
}

// comparison collects rows and entries of the bus, in any order. It holds all events in memory.
type comparison map[eventKey]*auditedEvent

func (c comparison) addRow(r auditRow) {
	c[r.eventKey] = &auditedEvent{auditRow: r, committed: true}
}

// addEntry comes after addRow of all rows.
func (c comparison) addEntry(e busEntry) {
	key := eventKey{e.EventID, e.AggregateType, e.AggregateID, e.AggregateVersion}
	known := c[key]
	if known == nil {
		known = &auditedEvent{auditRow: auditRow{eventKey: key, CreatedAt: e.CreatedAt}}
		c[key] = known
	}
	known.first = earliest(known.first, e.Arrived)
	if one := (busCopy{e.BusID, e.Replay}); !slices.Contains(known.copies, one) {
		known.copies = append(known.copies, one)
	}
}

// rules say how to judge.
type rules struct {
	now   time.Time     // of the database, when its rows were read
	grace time.Duration // what is younger may still be on its way
	late  time.Duration
	limit int // events listed of each kind
}

// findings are the events of one kind.
type findings struct {
	Count  int       `json:"count"`
	Events []finding `json:"events"` // the first of them, in aggregate order. Never null.
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
	Replayed   int      `json:"replayed"`   // copies with a replay marker. Somebody asked for them, so they are not duplicates.
	Late       findings `json:"late"`
	OutOfOrder findings `json:"outOfOrder"` // first on the bus after a later version of the aggregate was
	Unknown    findings `json:"unknown"`    // on the bus, not in the table
}

func (c comparison) judge(r rules) verdict {
	v := verdict{}
	for _, list := range []*findings{&v.Missing, &v.Duplicates, &v.Late, &v.OutOfOrder, &v.Unknown} {
		list.Events = []finding{}
	}
	var later latecomers
	for _, e := range slices.SortedFunc(maps.Values(c), (*auditedEvent).order) {
		young := e.CreatedAt.After(r.now.Add(-r.grace))
		onBus := len(e.copies) > 0
		if e.committed {
			v.Committed++
		}
		if onBus && later.is(e) {
			v.OutOfOrder.add(r, e)
		}
		switch {
		case e.committed && onBus:
			v.arrived(r, e)
		case young:
			v.Pending++
		case onBus:
			v.Unknown.add(r, e)
		default:
			v.Missing.add(r, e)
			if e.Passed {
				v.Passed++
			}
		}
	}
	return v
}

func (v *verdict) arrived(r rules, e *auditedEvent) {
	v.OnBus++
	plain := 0
	for _, one := range e.copies {
		if one.replay == "" {
			plain++
		}
	}
	v.Replayed += len(e.copies) - plain
	if plain > 1 {
		v.Duplicates.add(r, e)
		v.Duplicates.Count += plain - 2 // add has counted one
	}
	if e.first.Sub(e.CreatedAt) > r.late {
		v.Late.add(r, e)
	}
}

func (f *findings) add(r rules, e *auditedEvent) {
	f.Count++
	if len(f.Events) >= r.limit {
		return
	}
	found := finding{
		EventID: e.EventID.String(), AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.AggregateVersion,
		CreatedAt: e.CreatedAt, Copies: len(e.copies), SlotPassed: e.Passed && len(e.copies) == 0,
	}
	if !e.first.IsZero() {
		found.ArrivedAt = &e.first
	}
	f.Events = append(f.Events, found)
}

// latecomers finds events that came after a later version of their aggregate. It sees each aggregate's newest version first.
type latecomers struct {
	kind, id    string
	version     int64
	same, later time.Time // when the first of this version, and of the versions after it, arrived
}

func (l *latecomers) is(e *auditedEvent) bool {
	switch {
	case l.kind != e.AggregateType || l.id != e.AggregateID:
		*l = latecomers{kind: e.AggregateType, id: e.AggregateID, version: e.AggregateVersion}
	case l.version != e.AggregateVersion:
		l.version, l.later, l.same = e.AggregateVersion, earliest(l.later, l.same), time.Time{}
	}
	l.same = earliest(l.same, e.first)
	return !l.later.IsZero() && e.first.After(l.later)
}

// earliest takes a zero time for none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
