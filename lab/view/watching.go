package view

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// Watch sees what passes the path from the path's start on, before there is a page to show it. Each
// of its parts has a lock of its own, and only its own methods change it. The parts are read one
// after the other, as View.state explains.
type Watch struct {
	began   time.Time
	tally   *judge.Tally
	traffic *traffic
	shards  *shards
	recent  *recent
	series  *series
	wake    chan struct{} // poll soon
	parks   atomic.Bool   // the failure queue took something since its depth was asked
}

// NewWatch makes a Watch for local.Config.Observe, and then for Start.
func NewWatch() *Watch {
	tally := judge.NewTally()
	return &Watch{
		began: time.Now(), tally: tally, traffic: newTraffic(), shards: newShards(), recent: newRecent(tally.HasArrived), series: newSeries(),
		wake: make(chan struct{}, 1),
	}
}

// Observer returns the functions that the path calls.
func (w *Watch) Observer() *local.Observer {
	return &local.Observer{
		Requested: w.traffic.requested, Responded: w.responded, Stored: w.stored, Invoked: w.invoked, Returned: w.returned,
		Putting: w.traffic.puts, Accepted: w.accepted, Put: w.put, Parked: w.parked, Delivered: w.delivered, Suppressed: w.traffic.suppress,
	}
}

// pollSoon wakes the poller.
func (w *Watch) pollSoon() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// parkedSince reports whether the failure queue took something since the last call.
func (w *Watch) parkedSince() bool { return w.parks.Swap(false) }

func (w *Watch) responded(r local.Request) {
	now := time.Now()
	w.traffic.responded(now, r)
	w.series.pass(now, 1, now, 1)
	if r.Status >= 300 {
		return
	}
	if !r.Replayed {
		w.recent.requested(&r)
	}
	w.pollSoon()
}

func (w *Watch) stored(r awslocal.StreamRecord) {
	now := time.Now()
	w.traffic.record(now)
	w.series.pass(now, 4, r.Arrival, 1)
	record, skip, err := outbox.ParseRecord(r.Data)
	if err != nil || skip != outbox.SkipNothing {
		w.shards.stored(r, time.Time{})
		return
	}
	w.shards.stored(r, record.Commit.Time)
	w.series.pass(now, 3, record.Timestamp, 1)
	w.recent.ofRecord(record, func(e *event) { e.onStream(r.Arrival, r.Data) })
}

func (w *Watch) invoked(b local.Batch) {
	w.traffic.invoked(b)
	w.series.invoked(b)
	again := 0
	for place, record := range b.Records {
		if record.Event == nil {
			continue
		}
		w.recent.ofRecord(*record.Event, func(e *event) {
			if e.invoke(b, place) {
				again++
			}
		})
	}
	w.traffic.redelivered(time.Now(), again)
}

func (w *Watch) returned(b local.Batch) {
	now := time.Now()
	w.traffic.returned(now, b)
	w.series.returned(b)
	w.series.pass(now, 5, now, b.Failed)
	w.shards.returned(b)
	for place, record := range b.Records {
		if record.Event != nil {
			w.recent.of(record.Event.Row.ID, func(e *event) { e.returned(b, place) })
		}
	}
}

func (w *Watch) put(p local.Put) {
	w.traffic.put(time.Now(), p)
	for _, entry := range p.Entries {
		w.recent.of(entry.EventID, func(e *event) { e.put(p.At, entry) })
	}
}

// accepted is called before the answer, also for an entry whose answer is lost.
func (w *Watch) accepted(b awslocal.BusEvent) {
	now := time.Now()
	w.traffic.accepted(now)
	id, first := w.tally.Arrived(b)
	if id == uuid.Nil {
		return // not an event of ours
	}
	w.recent.of(id, func(e *event) { e.accept(b) })
	w.series.publish(now, id, first, b.Accepted)
}

func (w *Watch) parked(p cdcconsumer.ParkedRecord) {
	w.parks.Store(true)
	w.pollSoon()
	record, skip, err := outbox.ParseRecord(p.Data)
	if err != nil || skip != outbox.SkipNothing {
		return
	}
	w.tally.Parked(record.Row.ID, record.Row.CreatedAt)
	w.recent.of(record.Row.ID, func(e *event) { e.park() })
}

func (w *Watch) delivered(d local.Delivery) {
	for _, message := range d.Messages {
		if parsed, err := inbox.ParseEvent([]byte(message.Body)); err == nil {
			w.recent.of(parsed.ID, func(e *event) { e.deliver(d, message) })
		}
	}
}
