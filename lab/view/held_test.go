package view

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

// An experiment counts: while one runs, the page makes no cars beside it.
func TestNobodyInterferesWithAnExperiment(t *testing.T) {
	t.Parallel()
	v := newRig(t, t.TempDir()).View
	release := v.switches.hold("experiment 1 is running")
	for path, body := range map[string]string{
		"/cars": `{"make":"Toyota","model":"Camry","year":2023}`, "/load": `{"rate":7}`, "/switches/bus-down": `{"on":true}`,
	} {
		got := v.command(t, "POST", path, body)
		require.Equal(t, http.StatusConflict, got.status, path)
		require.Contains(t, got.body, "experiment 1 is running")
	}
	require.Zero(t, v.load.rate.Load())
	release()
	require.Equal(t, http.StatusCreated, v.command(t, "POST", "/cars", `{"make":"Toyota","model":"Camry","year":2023}`).status)
}

func TestTourSaysThatTheRelayWasStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.stack.Relay.Stop(t.Context())
	require.ErrorContains(t, r.tour.start(1), "make relay-start")
}

// Nobody will make a slot: the switches that could mend it are not to wait behind one that waits for it.
func TestNoSlotToDropIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.switched(t, "kill-relay", true)
	_, err := r.switches.set(t.Context(), "drop-slot", true)
	require.NoError(t, err)
	_, err = r.switches.set(t.Context(), "drop-slot", true)
	require.ErrorContains(t, err, local.ErrNoSlot.Error()) // a wait for the slot would end with another error, or not at all
}

// A row may be found late, by a recount: its second is old, its position in the WAL is not.
func TestRowThatIsFoundLateIsNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 3))
	labtest.Eventually(t, "seconds behind which nothing is on the way", func() bool {
		r.live.mu.Lock()
		defer r.live.mu.Unlock()
		return r.live.ledger.passed > 0
	})
	r.stack.Relay.Stop(t.Context())
	insert(t, r.connect(t), "'2001-01-01T00:00:00Z'")
	labtest.Eventually(t, "the row of 2001 to be counted", func() bool {
		r.live.mu.Lock()
		r.live.tables.recounted, r.live.tables.recountTook = time.Unix(1, 0), 0
		r.live.mu.Unlock()
		n := r.totals()
		require.Zero(t, n.Lost)
		return n.Committed == 4
	})
	require.Equal(t, int64(1), r.totals().OnTheWay)
	require.NoError(t, r.stack.Relay.Start())
	r.requireTotals(t, totals{Cars: 3, Counted: 3, Committed: 4, OnBus: 4})
}
