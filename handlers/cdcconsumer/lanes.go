package cdcconsumer

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"rds-outbox-demo/internal/sabotage"
)

// Limits of one PutEvents call. The bytes are the limit of before 2026, which not every region may have left behind.
const (
	maxEntries = 10
	maxBytes   = 256 << 10
)

// Backoff between the calls of a lane: doubles from the first to the last, half of it random.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 3200 * time.Millisecond
)

// queue holds the events that no lane has: the first of each aggregate is ready, the others wait until it is settled. So at most one
// entry of an aggregate is unanswered. With two, the retry of one that failed could arrive behind its successor.
type queue struct {
	ready   []*item               // by place
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

// take removes the items of the next call. The lowest places go first: they decide how far the checkpoint gets, and an
// aggregate with many records, which needs a call for each, starts with them.
func (q *queue) take() []*item {
	n, size := 0, 0
	for n < min(len(q.ready), maxEntries) {
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

// report is what a lane tells after each round. Until it reports an item, the item is its own.
type report struct {
	lane    int
	settled []*item // published or poison
	health  health
}

type health int

const (
	healthy  health = iota
	retrying        // some entries of its last round failed
	down            // a whole call failed
	ended
)

// publish decodes the batch, sends it through lanes, and returns when each item is settled or at the deadline.
func (c *Consumer) publish(ctx context.Context, items []*item, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	q := &queue{waiting: map[aggregate][]*item{}}
	reports := make(chan report)
	lanes := map[int]health{}
	for started := 0; ; {
		for len(lanes) < c.config.Lanes && !general(lanes) && ctx.Err() == nil {
			if items = c.fill(ctx, q, items); len(q.ready) == 0 {
				break
			}
			started++
			lanes[started] = healthy
			go c.lane(ctx, started, q.take(), reports)
		}
		if len(lanes) == 0 {
			return
		}
		r := <-reports
		for _, it := range r.settled {
			q.settled(it)
		}
		if lanes[r.lane] = r.health; r.health == ended {
			delete(lanes, r.lane)
		}
	}
}

// fill decodes items until the queue has a full call, and returns the rest: that is decoded while calls wait for their answers. After
// a panic nothing is left to decode: the aggregate of that record is unknown, so any event behind it could overtake one of its own
// aggregate. All of them are delivered again with it anyway.
func (c *Consumer) fill(ctx context.Context, q *queue, items []*item) (rest []*item) {
	for len(items) > 0 && len(q.ready) < maxEntries {
		it := items[0]
		items = items[1:]
		if it.cause = c.decodeItem(ctx, it); it.cause != nil {
			return nil
		}
		if it.state == stateEvent {
			q.add(it)
		}
	}
	return items
}

// general tells whether the failures are more than one entry's. New lanes would then only add to the load, and what they publish
// above the lowest failure is published again with the next delivery.
func general(lanes map[int]health) bool {
	troubled := 0
	for _, h := range lanes {
		switch h {
		case down:
			return true
		case retrying:
			troubled++
		case healthy, ended:
		}
	}
	return troubled > 1
}

// lane sends its items, at most one per aggregate, in rounds until each is settled or ctx ends.
func (c *Consumer) lane(ctx context.Context, id int, items []*item, reports chan<- report) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		settled, rest, health := c.round(ctx, items)
		if len(rest) == 0 {
			reports <- report{id, settled, ended}
			return
		}
		reports <- report{id, settled, health}
		if !wait(ctx, backoff/2+rand.N(backoff/2)) {
			reports <- report{id, nil, ended}
			return
		}
		items = rest
	}
}

// round sends each item once, and what the bus refuses in company once more, alone: it may have been refused for another one's
// content. It returns the items that are settled and those that failed.
func (c *Consumer) round(ctx context.Context, items []*item) (settled, rest []*item, health health) {
	var company []*item
	var calls [][]*item
	for _, it := range items {
		if it.alone {
			calls = append(calls, []*item{it})
		} else {
			company = append(company, it)
		}
	}
	if len(company) > 0 {
		calls = slices.Insert(calls, 0, company)
	}
	for len(calls) > 0 {
		call := calls[0]
		calls = calls[1:]
		results, callFailed := c.put(ctx, call)
		for i, it := range call {
			it.sent++
			switch result := results[i]; {
			case result.verdict == accepted:
				it.state, it.published = statePublished, time.Now()
				settled = append(settled, it)
			case result.verdict == refused && len(call) == 1:
				it.poison(ReasonRefused, result.code, result.message)
				settled = append(settled, it)
			case result.verdict == refused:
				it.alone = true
				calls = append(calls, []*item{it})
			default:
				it.cause = result.err()
				rest = append(rest, it)
			}
		}
		if callFailed {
			return settled, append(rest, slices.Concat(calls...)...), down
		}
	}
	if len(rest) > 0 {
		health = retrying
	}
	return settled, rest, health
}

// wait returns false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
