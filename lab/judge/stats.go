package judge

import (
	"slices"

	"rds-outbox-demo/lab/domain"
)

// judgeStats holds the totals of the example subscriber, carstats, against the events on the bus. Each car is as its newest event says, and
// each event is one change, however often and in whatever order the events came. It judges only if nothing else is wrong, because missing
// and unexpected events are accused already.
func (t *trial) judgeStats() {
	if t.NotCounted || len(t.Violations) > 0 {
		return
	}
	type totals struct{ cars, changes int64 }
	expected := map[string]totals{}
	t.aggregates(func(events []*event) {
		if t.InOrder {
			events = untilMissing(events)
		}
		newest := true
		for _, e := range slices.Backward(events) {
			k, err := domain.Kind(e.Data)
			if e.AggregateType != domain.AggregateType || e.first == nil || err != nil {
				continue
			}
			n := expected[k]
			n.changes++
			if newest && e.EventType != domain.Deleted {
				n.cars++
			}
			newest = false
			expected[k] = n
		}
	})
	for _, s := range t.Stats {
		if got, want := (totals{s.Cars, s.Changes}), expected[s.Kind]; got != want {
			t.violation(RuleCarStats, "carstats counts %d cars and %d changes of %s, and %d and %d were on the bus",
				got.cars, got.changes, s.Kind, want.cars, want.changes)
		}
		delete(expected, s.Kind)
	}
	for k, want := range expected {
		t.violation(RuleCarStats, "carstats counts no %s, and %d cars and %d changes were on the bus", k, want.cars, want.changes)
	}
}

// untilMissing returns the events before the first one that is not on the bus, because the bus refused it.
func untilMissing(events []*event) []*event {
	if i := slices.IndexFunc(events, func(e *event) bool { return e.first == nil }); i >= 0 {
		return events[:i]
	}
	return events
}
