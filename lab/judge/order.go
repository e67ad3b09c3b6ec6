package judge

// order finds events out of order. Such an event first arrives after a higher version of its aggregate.
type order[K comparable] struct {
	limit      int // aggregates that are remembered at least; 0: all
	young, old map[K]int64
}

// maxOrder is how many aggregates a Tally remembers at least. An event that comes after more events of other aggregates than that
// may be out of order unseen.
const maxOrder = 50_000

// next takes an event's first arrival. It returns the highest version of the aggregate that had arrived before, or 0, and reports
// whether the event is in order.
func (o *order[K]) next(aggregate K, version int64) (highest int64, inOrder bool) {
	highest = max(o.young[aggregate], o.old[aggregate])
	if o.limit > 0 && len(o.young) >= o.limit {
		o.old, o.young = o.young, nil
	}
	if o.young == nil {
		o.young = map[K]int64{}
	}
	o.young[aggregate] = max(highest, version)
	return highest, version > highest
}
