package judge

import "encoding/json"

// judgeStats holds the totals of the example subscriber, carstats, against the events on the bus. Each car is as its newest event says, and
// each event is one change, however often and in whatever order the events came. It judges only if nothing else is wrong, because missing
// and unexpected events are accused already.
func (t *trial) judgeStats() {
	if t.NotCounted || len(t.Violations) > 0 {
		return
	}
	type kind struct {
		Make string
		Year int32
	}
	type totals struct{ cars, changes int64 }
	expected := map[kind]totals{}
	t.aggregates(func(events []event) {
		newest := true
		for i := len(events) - 1; i >= 0; i-- {
			e := &events[i]
			var k kind
			if e.AggregateType != aggregateCar || e.first == nil || json.Unmarshal(e.Data, &k) != nil {
				continue
			}
			n := expected[k]
			n.changes++
			if newest && e.EventType != "CarDeleted" {
				n.cars++
			}
			newest = false
			expected[k] = n
		}
	})
	for _, s := range t.Stats {
		k := kind{s.Make, s.Year}
		if got, want := (totals{s.Cars, s.Changes}), expected[k]; got != want {
			t.violation(RuleCarStats, "carstats counts %d cars and %d changes of %s %d, and %d and %d were on the bus",
				got.cars, got.changes, k.Make, k.Year, want.cars, want.changes)
		}
		delete(expected, k)
	}
	for k, want := range expected {
		t.violation(RuleCarStats, "carstats counts no %s %d, and %d cars and %d changes were on the bus", k.Make, k.Year, want.cars, want.changes)
	}
}
