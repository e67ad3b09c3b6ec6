package view

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

func TestTotalsOfRealTraffic(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 30))
	id := r.post(t)
	for range 4 {
		r.send(t, http.MethodPatch, "/cars/"+id, domain.Change(1, "Red"))
	}
	gone := r.post(t)
	r.send(t, http.MethodDelete, "/cars/"+gone, "")
	insert(t, r.connect(t), "now()") // nobody counts boats
	r.requireTotals(t, totals{Cars: 31, Counted: 31, Committed: 38, OnBus: 38})

	f := r.atRest(t)
	require.Equal(t, f.Totals, r.totals())
	require.Empty(t, f.Problem)
	require.Equal(t, []int64{37, 38, 38, 38, 38, 38}, []int64{
		f.Stations[0].Total, f.Stations[1].Total, f.Stations[2].Total, f.Stations[3].Total, f.Stations[4].Total, f.Stations[5].Total,
	})
	require.NotNil(t, f.Slot)
	require.True(t, f.Slot.Exists && f.Slot.Active)
	require.Equal(t, "outbox_relay", f.Slot.Name)
	require.Regexp(t, `^[0-9A-F]+/[0-9A-F]+$`, f.Slot.ConfirmedLSN)
	require.Len(t, f.Shards, 2)
	for _, shard := range f.Shards {
		require.Zero(t, shard.Waiting)
		require.Zero(t, shard.BehindMs)
		require.Equal(t, "AFTER_SEQUENCE_NUMBER "+shard.Sequence, shard.Iterator)
	}
	require.Len(t, f.Events, 38)
	require.Equal(t, "Argo", f.Events[0].Title)
	require.Equal(t, "CarDeleted", f.Events[1].Type)
	for i, e := range f.Events {
		require.Equal(t, 6, e.Hop)
		require.Equal(t, 1, e.Copies)
		require.Equal(t, 1, e.Tries)
		before := 0.0
		for _, hop := range []string{"read", "stream", "consumer", "bus"} {
			require.Contains(t, e.Ms, hop)
			require.GreaterOrEqual(t, e.Ms[hop], before)
			before = e.Ms[hop]
		}
		if i > 0 {
			require.LessOrEqual(t, e.CommittedAt, f.Events[i-1].CommittedAt)
			labtest.Eventually(t, "the subscriber's answer", func() bool { return r.frame().Events[i].Ms["subscriber"] > 0 })
		}
	}
	for i := range f.Stations {
		require.Zero(t, f.Stations[i].Restarts)
	}
}

func TestTimelineOfRealTraffic(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 30))
	r.requireTotals(t, totals{Cars: 30, Counted: 30, Committed: 30, OnBus: 30})
	over := time.Now().Unix()
	var p timeline
	sum := func(counts []int64) (n int64) {
		for _, count := range counts {
			n += count
		}
		return n
	}
	// The consumer's answer may come after the subscriber's. A second has no percentiles before its end.
	labtest.Eventually(t, "every event in each lane of the timeline, and the end of the second", func() bool {
		p = r.timeline().(timeline)
		return len(p.Seconds) > 0 && p.Seconds[len(p.Seconds)-1] >= over && !slices.ContainsFunc(p.Passed[:], func(counts []int64) bool { return sum(counts) < 30 })
	})
	for hop, counts := range p.Passed {
		require.Len(t, counts, len(p.Seconds))
		require.EqualValues(t, 30, sum(counts), "hop %d", hop+1)
	}
	require.NotEmpty(t, p.Seconds)
	require.Len(t, p.P99, len(p.Seconds))
	percentiles := 0
	for i := range p.Seconds {
		if p.P50[i] != nil {
			percentiles++
			require.Positive(t, *p.P50[i])
			require.LessOrEqual(t, *p.P50[i], *p.P99[i])
		}
		if i > 0 {
			require.Equal(t, p.Seconds[i-1]+1, p.Seconds[i])
		}
	}
	require.Positive(t, percentiles)
}

func TestStoppedRelayHoldsEventsBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 5))
	r.requireTotals(t, totals{Cars: 5, Counted: 5, Committed: 5, OnBus: 5})
	r.stopRelay(t)
	require.NoError(t, r.create(t.Context(), 200))
	held := totals{Cars: 205, Counted: 5, Committed: 205, OnBus: 5, OnTheWay: 200}
	r.requireTotals(t, held)
	time.Sleep(2 * time.Second) // an event that waits in the WAL never counts as lost
	r.requireTotals(t, held)
	f := r.frame()
	require.Equal(t, 200, f.Stations[2].Backlog)
	require.GreaterOrEqual(t, f.Stations[2].OldestMs, int64(1500))
	require.Equal(t, "no relay runs", f.Stations[2].Note)
	require.Zero(t, f.Stations[3].Backlog)
	require.False(t, f.Slot.Active)
	require.Positive(t, f.Slot.LagBytes)
	require.Equal(t, 2, f.Events[0].Hop)
	require.Zero(t, f.Events[0].Copies)
	require.Empty(t, f.Events[0].Ms)

	require.NoError(t, r.path.Relay.Start())
	r.requireTotals(t, totals{Cars: 205, Counted: 205, Committed: 205, OnBus: 205})
	f = r.frame()
	require.Equal(t, 1, f.Stations[2].Restarts)
	require.Zero(t, f.Stations[2].Backlog)
	require.Zero(t, f.Stations[2].OldestMs)
	require.Greater(t, f.Events[0].Ms["bus"], 1000.0)
}

// If somebody moves the slot forward, the events between are lost. Nothing holds them any more, and
// the view says so. It takes that back when a load of the table brings them after all.
func TestWhatNothingHoldsIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 5))
	r.requireTotals(t, totals{Cars: 5, Counted: 5, Committed: 5, OnBus: 5})
	r.path.Relay.Kill(t.Context())
	require.NoError(t, r.create(t.Context(), 7))
	conn := r.connect(t)
	labtest.Eventually(t, "the slot to be free", func() bool {
		_, err := conn.Exec(t.Context(), "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", r.path.Slot())
		return err == nil
	})
	require.NoError(t, r.path.Relay.Start())
	require.NoError(t, r.create(t.Context(), 3))
	r.requireTotals(t, totals{Cars: 15, Counted: 8, Committed: 15, OnBus: 8, Lost: 7})

	require.NoError(t, r.path.DropSlot(t.Context()))
	labtest.Eventually(t, "the load", func() bool { return r.totals().Duplicates == 8 })
	r.requireTotals(t, totals{Cars: 15, Counted: 15, Committed: 15, OnBus: 15, Duplicates: 8, Suppressed: 8})
}

func TestEverythingTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	fault := r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Count: 1})
	id := r.post(t)
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 1, OnBus: 1, Duplicates: 1, Suppressed: 1})
	require.Equal(t, 1, fault.Struck())
	e := r.atRest(t).Events[0] // before that the consumer may not have heard of its second try
	require.Equal(t, id, e.AggregateID)
	// The answer to the first call was lost, so only the bus knows that it arrived.
	require.Equal(t, 2, e.Tries)
	require.Equal(t, 2, e.Copies)
	var all seen
	var counted, suppressed int
	labtest.Eventually(t, "both deliveries", func() bool {
		all, _ = r.seen(t, e.ID)
		counted, suppressed = 0, 0
		if all.Subscriber != nil {
			for _, d := range all.Subscriber.Deliveries {
				switch d.Answer {
				case "counted":
					counted++
				case "suppressed: counted already":
					suppressed++ // more than once if SQS takes a slow subscriber for a dead one
				}
			}
		}
		return counted > 0 && suppressed > 0
	})
	require.Equal(t, 1, counted)
	require.Len(t, all.Subscriber.Deliveries, all.Subscriber.Delivered)
	require.Contains(t, all.Consumer.PutEvents[0].Result, "NoAnswer")
	story, _ := r.where(t, e.ID)
	require.Equal(t, "on the bus 2 times", story.Says)
}

func TestLoadKeepsItsPace(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	began := time.Now()
	require.Equal(t, http.StatusOK, r.command(t, http.MethodPost, "/load", `{"rate":40}`).status)
	require.Equal(t, 40, int(r.load.rate.Load()))
	labtest.Eventually(t, "a few seconds of load", func() bool { return r.frame().Stations[0].Total > 120 })
	require.LessOrEqual(t, float64(r.frame().Stations[0].Total), 40*time.Since(began).Seconds()+40) // a busy machine sends less
	require.NoError(t, r.path.StopDatabase(t.Context()))
	before := r.load.failed.Load()
	labtest.Eventually(t, "requests that fail: it does not wait for better times", func() bool { return r.load.failed.Load() > before+20 })
	require.NoError(t, r.path.StartDatabase(t.Context()))
	require.Equal(t, http.StatusOK, r.command(t, http.MethodPost, "/load", `{"rate":0}`).status)
	labtest.Eventually(t, "all to arrive", func() bool { n := r.totals(); return n.OnTheWay == 0 && n.Counted == n.Cars && n.Committed > 100 })
	require.Zero(t, r.totals().Lost)
	labtest.Eventually(t, "no request any more", func() bool { // those under way have been answered
		total := r.frame().Stations[0].Total
		time.Sleep(300 * time.Millisecond)
		return r.frame().Stations[0].Total == total
	})
}

func TestWhatWasSeenOfAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	id := r.post(t)
	r.send(t, http.MethodPatch, "/cars/"+id, domain.Change(1, "Red"))
	r.send(t, http.MethodDelete, "/cars/"+id, "")
	r.requireTotals(t, totals{Committed: 3, OnBus: 3})
	events := r.frame().Events
	require.Len(t, events, 3)
	for i, method := range []string{"DELETE", "PATCH", "POST"} {
		labtest.Eventually(t, "the subscriber", func() bool { return r.frame().Events[i].Ms["subscriber"] > 0 })
		var all seen
		var text string
		labtest.Eventually(t, "the consumer's answer, which may come after the subscriber's, and the inbox's", func() bool {
			all, text = r.seen(t, events[i].ID)
			return all.Consumer.Invocations[0].Result != "under way" && all.Subscriber.CountedAt != ""
		})
		require.Empty(t, all.Why)
		require.Equal(t, 1, all.Copies)
		require.Equal(t, 1, all.Tries)
		require.Equal(t, method, all.Request.Method)
		require.Equal(t, 2, all.Request.Status/100)
		require.Contains(t, text, `"aggregate_id":"`+id+`"`, "the stream's record")
		require.Contains(t, text, `"metadata":{"`)
		require.Contains(t, string(all.EventData), id)
		require.Len(t, all.Consumer.Invocations, 1)
		require.Equal(t, "done", all.Consumer.Invocations[0].Result)
		require.LessOrEqual(t, all.Consumer.Invocations[0].Place, all.Consumer.Invocations[0].Of)
		require.Equal(t, "accepted", all.Consumer.PutEvents[0].Result)
		require.Equal(t, "outbox.car", all.Entry.Source)
		require.Contains(t, text, `"Detail":{"`)
		require.Equal(t, "counted", all.Subscriber.Deliveries[0].Answer)
		times := []string{all.Request.At, all.ReadAt, all.Consumer.Invocations[0].At, all.Entry.AcceptedAt, all.Subscriber.Deliveries[0].At}
		require.NotContains(t, times, "")
		require.IsIncreasing(t, times)
	}
}

func TestWatchingIsBounded(t *testing.T) {
	t.Parallel()
	w := NewWatch()
	o := w.Observer()
	for range maxRecent + 500 {
		e := someEvent(t, 20<<10)
		o.Responded(local.Request{At: time.Now(), Method: "POST", Path: "/cars", Location: "/cars/" + e.Row.AggregateID, ETag: `"1"`, Status: 201, Body: make([]byte, 200)})
		data, err := e.AppendJSON(nil)
		require.NoError(t, err)
		o.Stored(awslocal.StreamRecord{Shard: "s", Index: 1, Arrival: time.Now(), Data: data})
	}
	require.LessOrEqual(t, len(w.recent.order), maxRecent)
	require.LessOrEqual(t, w.recent.bytes, maxRecentBytes)
	require.Len(t, w.recent.byID, len(w.recent.order))
	require.LessOrEqual(t, len(w.recent.byChange), 2*maxRecent)
	require.LessOrEqual(t, len(w.recent.requests), maxRecent)
	require.LessOrEqual(t, len(w.recent.requestsByName), maxRecent)
	sh := &shard{}
	for i := range uint64(3 * maxMarks) {
		sh.mark(i, time.Unix(int64(i), 0))
	}
	require.LessOrEqual(t, len(sh.marks), maxMarks)
	sh.done, sh.end = 100, 3*maxMarks
	require.LessOrEqual(t, sh.oldest().Unix(), int64(101))
	var tries []int
	for i := range 100 {
		tries = appendTry(tries, i)
	}
	require.Len(t, tries, maxTries)
	require.Equal(t, []int{0, 99}, []int{tries[0], tries[maxTries-1]})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Zero(t, (&poller{watch: w}).next(ctx), "without a poll it does not wait for good")
}

// Events on the stream are on the way for as long as the bus accepts nothing.
func TestBusDownIsNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	down := r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: 503})
	require.NoError(t, r.create(t.Context(), 30))
	held := totals{Cars: 30, Committed: 30, OnTheWay: 30}
	r.requireTotals(t, held)
	labtest.Eventually(t, "3 s behind on each shard that has events", func() bool {
		return !slices.ContainsFunc(r.frame().Shards, func(s shardState) bool { return s.Waiting > 0 && s.BehindMs <= 3000 })
	})
	r.requireTotals(t, held)
	f := r.frame()
	require.Equal(t, 30, f.Stations[3].Backlog+f.Stations[4].InFlight, "%+v", f.Stations)
	require.Zero(t, f.Stations[2].Backlog)
	waiting := uint64(0)
	for _, shard := range f.Shards {
		waiting += shard.Waiting
		require.Equal(t, shard.Waiting > 0, shard.BehindMs > 3000, "%+v", shard)
	}
	require.EqualValues(t, 30, waiting)
	down.Off()
	r.requireTotals(t, totals{Cars: 30, Counted: 30, Committed: 30, OnBus: 30})
}
