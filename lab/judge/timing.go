package judge

import (
	"cmp"
	"slices"
	"time"

	"rds-outbox-demo/lab/domain"
)

// measure fills in what the verdict says about time.
func (t *trial) measure() {
	for i := 1; i < len(t.Arrivals); i++ {
		t.LongestGap = max(t.LongestGap, t.Arrivals[i].Accepted.Sub(t.Arrivals[i-1].Accepted))
	}
	t.aggregates(func(events []*event) {
		// chaos's own notes do not count, because many events of one transaction are always on their way at once.
		if events[0].AggregateType == domain.AggregateType && hot(events, t.Windows) {
			t.Hot++
		}
	})
	t.Recoveries = t.recoveries()
}

// hot reports whether at one moment of a fault at least MinInFlight of an aggregate's events were on their way, which is after their creation
// and before their arrival on the bus. Events that never arrive do not count.
func hot(events []*event, faults []Window) bool {
	if len(events) < MinInFlight {
		return false
	}
	type edge struct {
		at              time.Time
		inFlight, fault int // +1 at a beginning, -1 at an end
	}
	edges := make([]edge, 0, 2*(len(events)+len(faults)))
	for _, e := range events {
		if e.first != nil && !e.first.Accepted.Before(e.CreatedAt) {
			edges = append(edges, edge{at: e.CreatedAt, inFlight: 1}, edge{at: e.first.Accepted, inFlight: -1})
		}
	}
	for _, w := range faults {
		edges = append(edges, edge{at: w.Start, fault: 1}, edge{at: w.End, fault: -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(b.inFlight+b.fault, a.inFlight+a.fault)) // beginnings first
	})
	inFlight, open := 0, 0
	for _, e := range edges {
		inFlight += e.inFlight
		open += e.fault
		if inFlight >= MinInFlight && open > 0 {
			return true
		}
	}
	return false
}

func (t *trial) recoveries() []Recovery {
	arrived := slices.DeleteFunc(slices.Clone(t.events), func(e *event) bool { return e.first == nil })
	slices.SortFunc(arrived, func(a, b *event) int { return a.CreatedAt.Compare(b.CreatedAt) })
	all := make([]Recovery, len(t.Windows))
	for i, w := range t.Windows {
		all[i] = Recovery{Kind: w.Kind, Absent: true}
		next, _ := slices.BinarySearchFunc(arrived, w.End, func(e *event, end time.Time) int {
			if e.CreatedAt.After(end) {
				return 1
			}
			return -1
		})
		if next < len(arrived) {
			all[i] = Recovery{Kind: w.Kind, Took: arrived[next].first.Accepted.Sub(w.End)}
		}
	}
	return all
}
