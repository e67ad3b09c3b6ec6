package view

import (
	"context"
	"fmt"
	"math"
	"reflect"
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
	Reading            freshness     `json:"reading"`
	Stations           []station     `json:"stations"`
	Slot               *slotState    `json:"slot"`
	Shards             []shardState  `json:"shards"`
	FailureQueue       int           `json:"failureQueue"`
	SubscriberFailures int           `json:"subscriberFailures"`
	SubscriberQueue    int           `json:"subscriberQueue"`
	Held               heldState     `json:"held"`
	Totals             totals        `json:"totals"`
	Switches           []switchState `json:"switches"`
	Load               int           `json:"load"`
	LoadFailed         int           `json:"loadFailed"` // requests of the load that were not answered with success
	Tour               tourState     `json:"tour"`
	Problem            string        `json:"problem"`
	Events             []eventState  `json:"events"`
}

// freshness is the age of the database's last answer. All totals, also those of the stations, are
// as of then.
type freshness struct {
	At    string `json:"at"` // "" if the database was never read
	AgeMs int64  `json:"ageMs"`
	// Current reports whether the database was read after the API answered the last change. Only
	// then do the totals include every promised car.
	Current bool `json:"current"`
	// Settled reports whether nothing is on its way from the bus to the subscriber's totals.
	Settled bool `json:"settled"`
}

// totals are counts since the view's start, but for Parked.
type totals struct {
	Cars       int64 `json:"cars"`    // created, less deleted
	Counted    int64 `json:"counted"` // by carstats, which is to be the same
	Committed  int64 `json:"committed"`
	OnBus      int64 `json:"onBus"` // of the committed
	OnTheWay   int64 `json:"onTheWay"`
	Lost       int64 `json:"lost"`       // committed, not on the bus, not parked, and nothing before the bus holds it any more
	Duplicates int64 `json:"duplicates"` // entries on the bus beyond the first of their event
	Suppressed int64 `json:"suppressed"` // deliveries that the subscriber did not count again
	Parked     int64 `json:"parked"`     // records in the failure queue
	OutOfOrder int64 `json:"outOfOrder"`
}

// station is one of the six stations of the path as /live has it.
type station struct {
	Hop      int      `json:"hop"`
	Rate     float64  `json:"rate"`     // requests, commits, records or entries a second, over the last two seconds
	InFlight int      `json:"inFlight"` // begun, and not answered
	Backlog  int      `json:"backlog"`  // waiting in front of the next station
	OldestMs int64    `json:"oldestMs"` // longest wait of those in the backlog
	Restarts int      `json:"restarts"`
	Total    int64    `json:"total"`
	Note     string   `json:"note"`
	Faults   []string `json:"faults"` // names of the switches that are on here
}

// same reports whether two frames differ only in when they were made.
func (f frame) same(other frame) bool {
	f.At, f.Reading.At, f.Reading.AgeMs = other.At, other.Reading.At, other.Reading.AgeMs
	return reflect.DeepEqual(f, other)
}

// state makes a frame. It reads the tally last, because the tally hears of an event before the
// consumer returns. An event that moves on meanwhile may be missing in front of a station for one
// frame. It never waits in front of a station that it has passed.
func (v *View) state() frame {
	now := time.Now()
	flow := v.watch.traffic.flow(now)
	stream := v.watch.shards.backlog(now)
	db := v.poller.found()
	n := v.sum(db, flow)
	f := frame{
		At: stamp(now), Reading: readingOf(now, db, flow), Totals: n, Slot: db.slot, Shards: stream.shards, Events: v.watch.recent.newestFirst(), Problem: db.problem,
		FailureQueue: db.depths.Failures, SubscriberFailures: db.depths.SubscriberFailures, SubscriberQueue: db.depths.Subscriber, Held: db.held.state,
		Switches: v.switches.list(), Load: int(v.load.rate.Load()), LoadFailed: int(v.load.failed.Load()), Tour: v.tour.state(),
		Stations: []station{
			onHTTP(now, flow), inTransaction(db), v.inWAL(now, flow, stream, n), onStream(now, flow, stream), inConsumer(now, flow), onBus(flow, db),
		},
	}
	for i := range f.Events {
		f.Events[i].Held = db.held.ids[f.Events[i].ID]
	}
	if v.path.DatabaseStopped() {
		f.Problem = "PostgreSQL is stopped. What it would tell is as of its end."
	}
	for i, total := range []int64{db.flow.answered.total, n.Committed, db.flow.records.total, db.flow.records.total, db.flow.consumed.total, db.flow.published.total} {
		f.Stations[i].Total = total
	}
	for i := range f.Stations {
		f.Stations[i].Hop = i + 1
		f.Stations[i].Faults = v.switches.faultsAt(i + 1)
	}
	return f
}

func readingOf(now time.Time, db found, f flow) freshness {
	return freshness{
		At: stamp(db.read), AgeMs: age(now, db.read), Current: db.read.After(f.changed), Settled: db.answers && db.emptyAt == f.published.total,
	}
}

func (v *View) sum(db found, f flow) totals {
	c := v.watch.tally.Counts()
	return totals{
		Cars: db.cars, Counted: db.counted, Committed: c.Committed, OnBus: c.OnBus, OnTheWay: c.OnTheWay, Lost: c.Lost,
		Duplicates: c.Duplicates, Suppressed: f.suppressed, Parked: int64(db.depths.Failures), OutOfOrder: c.OutOfOrder,
	}
}

func onHTTP(now time.Time, f flow) station {
	return station{
		Rate: f.answered.rate, InFlight: f.requests, OldestMs: age(now, f.oldestRequest),
		Note: noted(f.refused.recent, "answered with 5xx"),
	}
}

func inTransaction(db found) station {
	s := station{Rate: db.rate, InFlight: db.open, Restarts: db.restarts}
	if !db.answers {
		s.InFlight, s.Note = 0, "does not answer"
	}
	return s
}

// inWAL shows the events that were committed, have not arrived, and are not on the stream. They
// include those that the relay is sending, because the relay does not report them.
func (v *View) inWAL(now time.Time, f flow, b backlog, n totals) station {
	s := station{
		Rate: f.records.rate, Backlog: max(0, int(n.OnTheWay)-b.waiting),
		Restarts: max(0, v.path.Relay.Starts()-1) + max(0, v.path.SecondRelay.Starts()-1),
	}
	if at, ok := v.watch.tally.OldestMissing(); ok && s.Backlog > 0 {
		since := time.Unix(at, 0)
		if b.waiting > 0 && b.newest.After(since) { // the WAL is in order, so an event that is not on the stream yet is younger
			since = b.newest
		}
		s.OldestMs = age(now, since)
	}
	if !v.path.Relay.Running() && !v.path.SecondRelay.Running() {
		s.Note = "no relay runs"
	}
	return s
}

func onStream(now time.Time, f flow, b backlog) station {
	s := station{Rate: f.records.rate, Backlog: max(0, b.waiting-f.inBatches)}
	if s.Backlog > 0 {
		s.OldestMs = age(now, b.oldest)
	}
	return s
}

func inConsumer(now time.Time, f flow) station {
	return station{
		Rate: f.consumed.rate, InFlight: f.inBatches, OldestMs: age(now, f.oldestBatch),
		Note: noted(f.again.recent, "delivered again"),
	}
}

func onBus(f flow, db found) station {
	return station{
		Rate: f.published.rate, InFlight: f.putting, Backlog: db.depths.Subscriber,
		Note: noted(f.failures.recent, "refused"),
	}
}

// noted returns what has gone wrong in the last two seconds.
func noted(n int64, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s in 2 s", n, what)
}

// age returns milliseconds, and 0 for the zero time.
func age(now, since time.Time) int64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Milliseconds())
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func millis(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/10) / 100 }

func (v *View) timeline() any {
	now := time.Now()
	t := v.watch.series.timeline(v.watch.began, now)
	t.Faults = v.switches.past(now)
	return t
}

// totals returns them after a poll that begins now.
func (v *View) totals() totals {
	return v.sum(v.poller.next(context.Background()), v.watch.traffic.flow(time.Now()))
}
