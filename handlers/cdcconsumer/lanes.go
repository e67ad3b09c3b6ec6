package cdcconsumer

import (
	"context"
	"slices"
	"time"

	"rds-outbox-demo/internal/jitter"
)

// Limits of one PutEvents call. The bytes are the limit of before 2026, which not every region may have left behind.
const (
	maxEntries = 10
	maxBytes   = 256 << 10
)

// The backoff between the calls of a lane doubles from the first to the last. Half of it is random.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 3200 * time.Millisecond
)

// outcome of the last call of a lane.
type outcome int

const (
	ok         outcome = iota
	someFailed         // some of its entries
	callFailed         // the call as a whole
)

// lane holds the items of one call until each of them is settled. Between two calls the lane waits.
type lane struct {
	items    []*item
	outcome  outcome
	failures int       // calls in a row that left something to be sent again
	due      time.Time // of its next call
	calling  bool
}

// response is the result of a call.
type response struct {
	lane     *lane
	results  []result // of each item
	failed   bool     // the call as a whole
	timedOut bool
	timeout  time.Duration
	sent     time.Time
	took     time.Duration
}

// publisher publishes one batch.
type publisher struct {
	*Consumer
	queue      queue
	rest       []*item // not decoded yet
	lanes      []*lane
	calls      int // under way
	unanswered int // entries of these calls
	responses  chan response
	sent       bool // a call was made
}

// publish decodes the batch and sends it in calls. It returns when each item is settled, at the
// deadline, or when less time is left than a call may take.
func (c *Consumer) publish(ctx context.Context, items []*item, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	p := &publisher{Consumer: c, queue: queue{waiting: map[aggregate][]*item{}}, rest: items, responses: make(chan response, c.config.Lanes)}
	for {
		for p.timeLeft(ctx, deadline) && p.startLane(ctx) {
		}
		if p.calls == 0 && (len(p.lanes) == 0 || !p.timeLeft(ctx, deadline)) {
			return
		}
		p.await(ctx)
	}
}

// await returns when a call was answered, when a lane is due, or when ctx ends. Calls that are under way end with ctx, too.
func (p *publisher) await(ctx context.Context) {
	var due <-chan time.Time
	if next, waits := p.nextDue(); waits {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	done := ctx.Done()
	if p.calls > 0 {
		done = nil
	}
	select {
	case r := <-p.responses:
		p.settle(r)
	case <-due:
	case <-done:
	}
}

// timeLeft reports whether a call may be started. A call that the deadline cuts off is wasted, and
// its entries come twice. The first call is always made, because the expected time may be out of
// date.
func (p *publisher) timeLeft(ctx context.Context, deadline time.Time) bool {
	return ctx.Err() == nil && (!p.sent || time.Until(deadline) > p.window.Expected())
}

// startLane starts the next call, and reports whether there was a call to start. A lane that is due
// goes before new ones.
func (p *publisher) startLane(ctx context.Context) bool {
	if p.calls == p.config.Lanes {
		return false
	}
	most := p.window.Call()
	if l := p.dueLane(); l != nil {
		if !p.window.Room(p.unanswered, min(most, len(l.items))) {
			return false
		}
		p.shorten(l, most)
		p.call(ctx, l)
		return true
	}
	if len(p.lanes) >= p.config.Lanes || widespread(p.lanes) || !p.window.Room(p.unanswered, most) {
		return false
	}
	if p.fill(ctx); len(p.queue.ready) == 0 {
		return false
	}
	l := &lane{items: p.queue.take(most)}
	p.lanes = append(p.lanes, l)
	p.call(ctx, l)
	return true
}

// dueLane returns the lane whose next call is due. Of several it returns the one with the lowest
// place.
func (p *publisher) dueLane() (first *lane) {
	for _, l := range p.lanes {
		if !l.calling && !l.due.After(time.Now()) && (first == nil || l.items[0].place < first.items[0].place) {
			first = l
		}
	}
	return first
}

// nextDue returns when the next of the waiting lanes is due.
func (p *publisher) nextDue() (next time.Time, waits bool) {
	for _, l := range p.lanes {
		if !l.calling && l.due.After(time.Now()) && (!waits || l.due.Before(next)) {
			next, waits = l.due, true
		}
	}
	return next, waits
}

// shorten keeps in the lane as many items as the window allows in one call. The rest becomes
// another lane.
func (p *publisher) shorten(l *lane, most int) {
	if len(l.items) > most {
		rest := *l
		l.items, rest.items = l.items[:most], l.items[most:]
		p.lanes = append(p.lanes, &rest)
	}
}

func (p *publisher) call(ctx context.Context, l *lane) {
	l.calling, p.sent = true, true
	p.calls++
	p.unanswered += len(l.items)
	go func() { p.responses <- p.put(ctx, l) }()
}

// settle records a response. An entry that was refused in a call of several is sent once more,
// alone, because another entry's content may be the cause.
func (p *publisher) settle(r response) {
	p.learn(r)
	p.calls--
	p.unanswered -= len(r.lane.items)
	var again []*item
	for i, it := range r.lane.items {
		it.sent++
		switch result := r.results[i]; {
		case result.verdict == accepted:
			it.state, it.published = statePublished, time.Now()
			p.queue.settled(it)
		case result.verdict == refused && len(r.results) == 1:
			it.poison(ReasonRefused, result.code, result.message)
			p.queue.settled(it)
		case result.verdict == refused:
			p.lanes = append(p.lanes, &lane{items: []*item{it}})
		default:
			it.cause = result.err()
			again = append(again, it)
		}
	}
	if len(again) == 0 {
		p.lanes = slices.DeleteFunc(p.lanes, func(l *lane) bool { return l == r.lane })
		return
	}
	l := r.lane
	l.items, l.calling, l.outcome = again, false, someFailed
	if r.failed {
		l.outcome = callFailed
	}
	l.due = time.Now().Add(backoff(l.failures))
	l.failures++
}

// learn tells the window how long the bus took.
func (p *publisher) learn(r response) {
	switch {
	case r.timedOut:
		p.window.TimedOut(r.sent, r.timeout)
	case r.failed:
		p.window.Refused(r.took)
	default:
		p.window.Answered(len(r.results), p.unanswered, r.took)
	}
}

// backoff doubles with each failure, from the first to the last, and half of it is random.
func backoff(failures int) time.Duration {
	d := min(firstBackoff<<min(failures, 10), lastBackoff)
	return d/2 + jitter.Draw(d/2)
}

// widespread reports whether the failures concern more than one entry. New lanes would then only
// add to the load, and what they publish above the lowest failure is published again with the next
// delivery.
func widespread(lanes []*lane) bool {
	troubled := 0
	for _, l := range lanes {
		switch l.outcome {
		case callFailed:
			return true
		case someFailed:
			troubled++
		case ok:
		}
	}
	return troubled > 1
}

// fill decodes until the queue has a full call. The rest is decoded while calls wait for their
// answers. After a panic it decodes nothing more. The aggregate of that record is unknown, so any
// later event could overtake one of its own aggregate. All later records are delivered again with
// it anyway.
func (p *publisher) fill(ctx context.Context) {
	for len(p.rest) > 0 && len(p.queue.ready) < maxEntries {
		it := p.rest[0]
		p.rest = p.rest[1:]
		if it.cause = p.decodeItem(ctx, it); it.cause != nil {
			p.rest = nil
			return
		}
		if it.state == stateEvent {
			p.queue.add(it)
		}
	}
}
