package view

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

func TestParkedIsNotLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, dir)
	refused := r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "MalformedDetail", Match: `"name":"Argo"`})
	id := insert(t, r.connect(t), "now()")
	r.post(t)
	require.NoError(t, r.path.PutPoison(t.Context(), "x"))
	parked := totals{Cars: 1, Counted: 1, Committed: 2, OnBus: 1, Parked: 2}
	r.requireTotals(t, parked)
	time.Sleep(2 * time.Second)
	r.requireTotals(t, parked)
	require.NotZero(t, refused.Struck())
	all, _ := r.seen(t, id)
	require.True(t, all.Parked)
	require.Nil(t, all.Request, "it was written beside the API")
	for _, e := range r.frame().Events {
		require.Equal(t, e.ID == id, e.Parked)
	}
	r.end()

	r = newRig(t, dir)
	r.requireTotals(t, totals{Parked: 2}) // the queue still has both
}

func TestRefusedEntriesShow(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	fault := r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure"})
	r.post(t)
	var f frame
	var all seen
	labtest.Eventually(t, "the refusal, while the invocation is under way", func() bool {
		f = r.frame()
		if len(f.Events) != 1 || f.Events[0].Error != "InternalFailure" {
			return false
		}
		all, _ = r.seen(t, f.Events[0].ID)
		last := all.Consumer.Invocations[len(all.Consumer.Invocations)-1] // the first may have met its timeout
		return strings.HasSuffix(f.Stations[5].Note, "refused in 2 s") && f.Stations[4].InFlight == 1 && last.Result == "under way"
	})
	require.Equal(t, 5, f.Events[0].Hop)
	labtest.Eventually(t, "the poll that counts the event", func() bool { return r.totals().OnTheWay == 1 })
	require.Nil(t, all.Entry)
	fault.Off()
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 1, OnBus: 1})
	tries := r.atRest(t).Events[0].Tries // before that the consumer may not have heard of its last try
	require.Greater(t, tries, 1)
	all, _ = r.seen(t, f.Events[0].ID)
	require.Equal(t, tries, all.Tries)
	require.Contains(t, all.Consumer.PutEvents[0].Result, "InternalFailure")
	require.Empty(t, r.frame().Events[0].Error)
}

func TestStoppedDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	id := r.post(t)
	whole := totals{Cars: 1, Counted: 1, Committed: 1, OnBus: 1}
	r.requireTotals(t, whole)
	require.NoError(t, r.path.StopDatabase(t.Context()))
	labtest.Eventually(t, "the view to notice", func() bool { return r.frame().Slot == nil })
	var f frame
	labtest.Eventually(t, "the 5xx of the last two seconds", func() bool {
		require.Error(t, r.create(t.Context(), 1))
		f = r.frame()
		return strings.Contains(f.Stations[0].Note, "answered with 5xx")
	})
	require.Contains(t, f.Problem, "PostgreSQL is stopped")
	require.Equal(t, whole, f.Totals, "what is known stays")
	require.Equal(t, "does not answer", f.Stations[1].Note)
	require.Zero(t, f.Stations[1].Rate)
	all, _ := r.seen(t, f.Events[0].ID)
	require.Contains(t, string(all.EventData), id, "what was seen stays")
	got := r.ask(t, http.MethodGet, "/events/"+f.Events[0].ID.String()+"/where", "")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Contains(t, got.body, "connecting to the database")

	require.NoError(t, r.path.StartDatabase(t.Context()))
	labtest.Eventually(t, "the view to come back", func() bool { return r.frame().Slot != nil && r.frame().Problem == "" })
	require.NoError(t, r.create(t.Context(), 3))
	labtest.Eventually(t, "every event on the bus", func() bool {
		got := r.totals()
		got.Duplicates, got.Suppressed = 0, 0 // events that were not confirmed when the database stopped come again
		return got == totals{Cars: 4, Counted: 4, Committed: 4, OnBus: 4}
	})
	require.Equal(t, 1, r.frame().Stations[1].Restarts)
}

// The view counts from its own start. Events that an earlier run has left on the way arrive, and
// count neither as new nor as duplicates.
func TestCountsBeginWithTheView(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, dir)
	lost := r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Count: 2})
	require.NoError(t, r.create(t.Context(), 20))
	labtest.Eventually(t, "duplicates", func() bool { return lost.Struck() == 2 && r.totals().OnBus == 20 && r.totals().Counted == 20 })
	r.atRest(t) // both calls without an answer have been made again
	labtest.Eventually(t, "the subscriber to get them", func() bool { n := r.totals(); return n.Duplicates > 0 && n.Suppressed >= n.Duplicates })
	before := r.totals()
	boat := insert(t, r.connect(t), "now()")
	labtest.Eventually(t, "the boat", func() bool { return r.totals().OnBus == 21 })
	r.atRest(t) // if the consumer's answer is lost with the rig, the next rig gets the boat again
	r.stopRelay(t)
	require.NoError(t, r.create(t.Context(), 40))
	r.requireTotals(t, totals{Cars: 60, Counted: 20, Committed: 61, OnBus: 21, OnTheWay: 40, Duplicates: before.Duplicates, Suppressed: before.Suppressed})
	car := r.frame().Events[0].ID
	r.end()

	r = newRig(t, dir)
	labtest.Eventually(t, "what was left", func() bool {
		events := r.frame().Events
		return len(events) == 40 && !slices.ContainsFunc(events, func(e eventState) bool { return e.Copies == 0 })
	})
	r.requireTotals(t, totals{})
	all, _ := r.seen(t, boat)
	require.Contains(t, all.Why, "Seen by an earlier run")
	story, _ := r.where(t, boat)
	require.Equal(t, "on the bus", story.Says, "outboxctl needs nobody who saw it")
	labtest.Eventually(t, "the subscriber's note", func() bool {
		all, _ = r.seen(t, car)
		return all.Subscriber != nil && all.Subscriber.CountedAt != ""
	})
	require.Nil(t, all.Request)
	require.Equal(t, "CarCreated", all.Entry.DetailType)
	require.NoError(t, r.create(t.Context(), 3))
	r.requireTotals(t, totals{Cars: 3, Counted: 3, Committed: 3, OnBus: 3})
}

// A row whose created_at is before the view's start is not counted, and so never lost.
func TestRowOfThePastIsNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 3))
	r.requireTotals(t, totals{Cars: 3, Counted: 3, Committed: 3, OnBus: 3})
	r.stopRelay(t)
	old := insert(t, r.connect(t), "'2001-01-01T00:00:00Z'")
	require.NoError(t, r.create(t.Context(), 1))
	r.requireTotals(t, totals{Cars: 4, Counted: 3, Committed: 4, OnBus: 3, OnTheWay: 1})
	require.NoError(t, r.path.Relay.Start())
	r.requireTotals(t, totals{Cars: 4, Counted: 4, Committed: 4, OnBus: 4})
	all, _ := r.seen(t, old)
	require.Equal(t, 1, all.Copies)
}

// created_at is the beginning of its transaction. A transaction that stays open for long commits a
// row into a second that is long over.
func TestLongTransactionIsCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	conn := r.connect(t)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		VALUES (gen_random_uuid(), 'Boat', 'Argo', 1, 'BoatLaunched', '{}')`)
	require.NoError(t, err)
	for range 4 {
		require.NoError(t, r.create(t.Context(), 1))
		time.Sleep(time.Second)
	}
	r.requireTotals(t, totals{Cars: 4, Counted: 4, Committed: 4, OnBus: 4})
	require.NoError(t, tx.Commit(t.Context()))
	r.requireTotals(t, totals{Cars: 4, Counted: 4, Committed: 5, OnBus: 5})
}

// A kill in the middle of everything costs no event, and no count.
func TestKilledRelayUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.load.set(100)
	for n := range int64(3) {
		labtest.Eventually(t, "load", func() bool { return r.totals().OnBus > 50*n+50 })
		r.path.Relay.Kill(t.Context())
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, r.path.Relay.Start())
	}
	r.load.set(0)
	require.Zero(t, r.load.failed.Load())
	labtest.Eventually(t, "all to arrive", func() bool { n := r.totals(); return n.OnTheWay == 0 && n.Counted == n.Cars && n.OnBus == n.Committed })
	n := r.totals()
	require.Greater(t, n.Committed, int64(150))
	require.Zero(t, n.Lost)
	require.Zero(t, n.OutOfOrder)
	labtest.Eventually(t, "the bus to have as many duplicates as are counted", func() bool { // more may be on their way
		has := busHas(t, r)
		n = r.totals()
		return n.Duplicates == has-n.OnBus
	})
}

// busHas counts the journal's entries.
func busHas(t *testing.T, r *rig) (n int64) {
	t.Helper()
	err := awslocal.ReadBus(r.path.AWSDir(), func(awslocal.BusEvent) error { n++; return nil })
	require.NoError(t, err)
	return n
}
