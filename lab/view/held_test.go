package view

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
)

// An experiment counts cars, so the page makes no others while one runs.
func TestNobodyInterferesWithAnExperiment(t *testing.T) {
	t.Parallel()
	v := newRig(t, t.TempDir()).View
	running := func(n int) {
		v.tour.mu.Lock()
		defer v.tour.mu.Unlock()
		v.tour.now.Running = n
	}
	running(1)
	for path, body := range map[string]string{
		"/cars": domain.Sample(0), "/load": `{"rate":7}`, "/switches/bus-down": `{"on":true}`,
	} {
		got := v.command(t, "POST", path, body)
		require.Equal(t, http.StatusConflict, got.status, path)
		require.Contains(t, got.body, "experiment 1 is running")
	}
	require.Zero(t, v.load.rate.Load())
	running(0)
	require.Equal(t, http.StatusCreated, v.command(t, "POST", "/cars", domain.Sample(0)).status)
}

func TestTourSaysThatTheRelayWasStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.path.Relay.Stop(t.Context())
	require.ErrorContains(t, r.tour.start(1, false), "make relay-start")
}

// No slot will be made, so drop-slot fails at once. If it waited for a slot, the switches that
// could mend the path would have to wait for it.
func TestNoSlotToDropIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.switched(t, "kill-relay", true)
	_, err := r.switches.set(t.Context(), "drop-slot", true)
	require.NoError(t, err)
	_, err = r.switches.set(t.Context(), "drop-slot", true)
	require.ErrorContains(t, err, local.ErrNoSlot.Error()) // a wait for the slot would end with another error, or never
}
