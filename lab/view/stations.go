package view

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// hopDefinition is a station as /meta has it.
type hopDefinition struct {
	Hop  int    `json:"hop"`
	Sign string `json:"sign"`
	Name string `json:"name"`
	What string `json:"what"`
	AWS  string `json:"aws"`
}

var hops = []hopDefinition{
	{1, "①", "HTTP", "POST /cars", "API Gateway → Lambda"},
	{2, "②", "Transaction", "cars and outbox, one commit", "RDS PostgreSQL"},
	{3, "③", "WAL", "walrelay reads the slot", "DMS or walrelay"},
	{4, "④", "Stream", "a record per event, in order per car", "Kinesis Data Streams"},
	{5, "⑤", "Consumer", "batches, retries, parking", "Lambda"},
	{6, "⑥", "Bus", "PutEvents; subscribers", "EventBridge"},
}

// shardState is a shard as /live has it.
type shardState struct {
	ID       string `json:"id"`
	Sequence string `json:"sequence"` // of the last record that the consumer is done with
	Iterator string `json:"iterator"`
	BehindMs int64  `json:"behindMs"` // age of the oldest record that it is not done with
	Waiting  uint64 `json:"waiting"`  // records
}

// frame is event state of /live.
type frame struct {
	At                 string        `json:"at"`
	Stations           []station     `json:"stations"`
	Slot               *slotState    `json:"slot"`
	Shards             []shardState  `json:"shards"`
	FailureQueue       int           `json:"failureQueue"`
	SubscriberFailures int           `json:"subscriberFailures"`
	SubscriberQueue    int           `json:"subscriberQueue"`
	Totals             totals        `json:"totals"`
	Switches           []switchState `json:"switches"`
	Load               int           `json:"load"`
	LoadFailed         int           `json:"loadFailed"` // requests of the load that were not answered with success
	Tour               tourState     `json:"tour"`
	Problem            string        `json:"problem"`
	Events             []eventState  `json:"events"`
}

// state is a frame, and a number that is another one when something has happened.
func (v *View) state() (state any, changed uint64) {
	f := frame{Switches: v.switches.list(), Load: int(v.load.rate.Load()), LoadFailed: int(v.load.failed.Load()), Tour: v.tour.state()}
	changed = v.live.fill(&f)
	for i := range f.Stations {
		f.Stations[i].Faults = v.switches.faultsAt(f.Stations[i].Hop)
	}
	// What is switched and toured is no observation, but worth a frame, too.
	for _, s := range f.Switches {
		changed += uint64(s.Struck)
		if s.On {
			changed += 1 << 32
		}
		if s.Busy {
			changed += 1 << 40
		}
	}
	return f, changed + uint64(f.Load)<<48 + uint64(f.Tour.Running*16+f.Tour.Step)<<24 + uint64(len(f.Tour.Said))
}

func (l *live) fill(f *frame) (changed uint64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	f.At = stamp(now)
	f.Totals = l.sums()
	f.Stations = l.stations(now, f.Totals)
	f.Slot = l.tables.slot
	f.Shards = []shardState{}
	for id, sh := range l.shards {
		s := shardState{ID: id, Sequence: sh.sequence, Iterator: "TRIM_HORIZON, nothing read yet", Waiting: sh.end - min(sh.end, sh.done)}
		if sh.sequence != "" {
			s.Iterator = "AFTER_SEQUENCE_NUMBER " + sh.sequence
		}
		if oldest := sh.oldest(); !oldest.IsZero() {
			s.BehindMs = max(0, now.Sub(oldest).Milliseconds())
		}
		f.Shards = append(f.Shards, s)
	}
	slices.SortFunc(f.Shards, func(a, b shardState) int { return strings.Compare(a.ID, b.ID) })
	f.FailureQueue, f.SubscriberFailures, f.SubscriberQueue = l.depths.Failures, l.depths.SubscriberFailures, l.depths.Subscriber
	f.Problem = l.problem()
	f.Events = l.newestFirst()
	return l.changed
}

func (l *live) problem() string {
	switch {
	case l.stack != nil && l.stack.DatabaseStopped():
		return "PostgreSQL is stopped: what it would tell is as of its end."
	case l.tables.problem != "":
		return l.tables.problem
	case !l.ledger.begun:
		return "Counting what earlier runs have left."
	default:
		return ""
	}
}

func (l *live) stations(now time.Time, n totals) []station {
	all := make([]station, len(hops))
	for i := range all {
		all[i] = station{Hop: i + 1, Faults: []string{}}
	}
	http, tx, wal, stream, consumer, bus := &all[0], &all[1], &all[2], &all[3], &all[4], &all[5]

	http.Rate, http.Total, http.InFlight = l.answered.rate(now), l.answered.total, len(l.requests)
	http.OldestMs = age(now, l.requests)
	http.Note = noted(l.refused.recent(now), "answered with 5xx")

	tx.Rate, tx.Total, tx.InFlight, tx.Restarts = l.tables.rate, n.Committed, l.tables.open, l.tables.restarts
	if !l.tables.answers {
		tx.InFlight = 0
		tx.Note = "does not answer"
	}

	// The relay tells nobody what it has under way. Between the table and the stream is what was committed, has not arrived, and is not
	// on the stream.
	stream.Rate, stream.Total = l.stored.rate(now), l.stored.total
	waiting, oldest := 0, time.Time{}
	for _, sh := range l.shards {
		waiting += int(sh.end - min(sh.end, sh.done))
		if at := sh.oldest(); !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	stream.Backlog = max(0, waiting-l.inBatches)
	if stream.Backlog > 0 {
		stream.OldestMs = max(0, now.Sub(oldest).Milliseconds())
	}
	wal.Rate, wal.Total, wal.Backlog = stream.Rate, stream.Total, max(0, int(n.OnTheWay)-waiting)
	if at, ok := l.ledger.oldest(); ok && wal.Backlog > 0 {
		since := time.Unix(at, 0)
		if waiting > 0 && l.newest.After(since) { // the WAL is in order: what is not on the stream is younger than what is
			since = l.newest
		}
		wal.OldestMs = max(0, now.Sub(since).Milliseconds())
	}
	if l.stack != nil {
		wal.Restarts = max(0, l.stack.Relay.Starts()-1) + max(0, l.stack.SecondRelay.Starts()-1)
		if !l.stack.Relay.Running() && !l.stack.SecondRelay.Running() {
			wal.Note = "no relay runs"
		}
	}

	consumer.Rate, consumer.Total, consumer.InFlight = l.consumed.rate(now), l.consumed.total, l.inBatches
	for _, b := range l.batches {
		consumer.OldestMs = max(consumer.OldestMs, now.Sub(b.At).Milliseconds())
	}
	consumer.Note = noted(l.again.recent(now), "delivered again")

	bus.Rate, bus.Total, bus.InFlight, bus.Backlog = l.published.rate(now), n.OnBus+n.Duplicates, l.putting, l.depths.Subscriber
	bus.Note = noted(l.failures.recent(now), "refused")
	return all
}

// noted says what has gone wrong in the last two seconds.
func noted(n int64, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s in 2 s", n, what)
}

func age(now time.Time, began map[int64]time.Time) (ms int64) {
	for _, at := range began {
		ms = max(ms, now.Sub(at).Milliseconds())
	}
	return ms
}

func (l *live) plots() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.series.plots(l.began, time.Now())
}

// What the tour sees and does: observed.

func (v *View) totals() totals                          { return v.live.fresh(context.Background()) }
func (v *View) setRate(n int)                           { v.load.set(n) }
func (v *View) create(ctx context.Context, n int) error { return v.load.create(ctx, n) }
