package cdcconsumer

import (
	"cmp"
	"slices"

	"rds-outbox-demo/internal/sabotage"
)

// queue holds the events that are in no lane. The first event of each aggregate is ready, and the
// others wait until it is settled. So at most one entry of an aggregate is unanswered. With two,
// the retry of a failed entry could arrive after its successor.
type queue struct {
	ready   []*item               // in the order of their places
	waiting map[aggregate][]*item // an aggregate with an item in ready or in a lane has a key here
}

// add appends an event.
func (q *queue) add(it *item) {
	if behind, busy := q.waiting[it.aggregate()]; busy && !sabotage.On(sabotage.AggregateInTwoLanes) {
		q.waiting[it.aggregate()] = append(behind, it)
		return
	}
	q.waiting[it.aggregate()] = nil
	q.ready = append(q.ready, it)
}

// take removes and returns the items of the next call, at most most. The lowest places go first,
// because they decide how far the checkpoint gets. An aggregate with many records needs a call for
// each of them, so this order also starts it early.
func (q *queue) take(most int) []*item {
	n, size := 0, 0
	for n < min(len(q.ready), most) {
		size += q.ready[n].size
		if n > 0 && size >= maxBytes {
			break
		}
		n++
	}
	call := slices.Clone(q.ready[:n])
	q.ready = q.ready[n:]
	return call
}

// settled makes the next item of its aggregate ready.
func (q *queue) settled(it *item) {
	behind := q.waiting[it.aggregate()]
	if len(behind) == 0 {
		delete(q.waiting, it.aggregate())
		return
	}
	next := behind[0]
	q.waiting[it.aggregate()] = behind[1:]
	at, _ := slices.BinarySearchFunc(q.ready, next, func(a, b *item) int { return cmp.Compare(a.place, b.place) })
	q.ready = slices.Insert(q.ready, at, next)
}
