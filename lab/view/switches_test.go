package view

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

func (r *rig) switched(t *testing.T, name string, on bool) switchState {
	t.Helper()
	state, err := r.switches.set(t.Context(), name, on)
	require.NoError(t, err)
	require.Equal(t, name, state.Name)
	return state
}

func (r *rig) switchNamed(name string) switchState {
	all := r.switches.list()
	return all[slices.IndexFunc(all, func(s switchState) bool { return s.Name == name })]
}

// Every switch is on while its fault is in force, counts the strike as soon as it strikes, and
// leaves no trace when it is off.
func TestEachSwitchBreaksAndMends(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	create := func(t *testing.T) { require.NoError(t, r.create(t.Context(), 5)) }
	poison := func(t *testing.T) { r.switched(t, "poison", true) }
	nothing := func(*testing.T) {}
	for _, tc := range []struct {
		name    string
		trigger func(*testing.T)
		broken  func(before, now totals) bool // reports whether the fault can be seen
	}{
		{"throttle-kinesis", create, nil},
		{"fail-entries", func(t *testing.T) { create(t); create(t) }, nil},
		{"bus-down", create, func(before, now totals) bool { return now.OnBus == before.OnBus && now.OnTheWay == 5 }},
		{"queue-down", poison, func(before, now totals) bool { return now.Parked == before.Parked }},
		{"duplicate", create, func(before, now totals) bool { return now.Suppressed >= before.Suppressed+5 }},
		{"kill-relay", create, func(before, now totals) bool { return now.OnBus == before.OnBus && now.OnTheWay == 5 }},
		{"stop-postgres", func(t *testing.T) { require.Error(t, r.create(t.Context(), 1)) }, nil},
		{"two-relays", nothing, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hop := r.switches.named(tc.name).Hop
			before := r.totals()
			require.True(t, r.switched(t, tc.name, true).On)
			require.Contains(t, r.switches.faultsAt(hop), tc.name)
			struck := r.switchNamed(tc.name).Struck
			require.True(t, r.switched(t, tc.name, true).On, "on twice is on")
			require.LessOrEqual(t, len(r.path.AWS.Faults().List()), 2)
			tc.trigger(t)
			labtest.Eventually(t, "a strike", func() bool { struck = r.switchNamed(tc.name).Struck; return struck > 0 })
			if tc.broken != nil {
				labtest.Eventually(t, "the path to be broken", func() bool { return tc.broken(before, r.totals()) })
			}
			require.False(t, r.switched(t, tc.name, false).On)
			require.NotContains(t, r.switches.faultsAt(hop), tc.name)
			require.GreaterOrEqual(t, r.switchNamed(tc.name).Struck, struck, "what it did is not forgotten")
			if tc.name == "queue-down" {
				labtest.Eventually(t, "the poison to be parked", func() bool { return r.totals().Parked == before.Parked+1 })
			}
			r.requireWhole(t)
		})
	}
	t.Run("drop-slot", func(t *testing.T) {
		before := r.totals()
		state := r.switched(t, "drop-slot", true)
		require.False(t, state.On, "it strikes once")
		require.Equal(t, 1, state.Struck)
		labtest.Eventually(t, "every row once more", func() bool { return r.totals().Suppressed >= before.Suppressed+before.Committed })
		r.requireWhole(t)
	})
	t.Run("poison", func(t *testing.T) {
		before, struck := r.totals().Parked, r.switchNamed("poison").Struck
		require.Equal(t, struck+1, r.switched(t, "poison", true).Struck)
		labtest.Eventually(t, "the poison to be parked", func() bool { return r.totals().Parked == before+1 })
		r.requireWhole(t)
	})
}

// The switches show what somebody else has done to the path.
func TestSwitchesShowWhatIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.switched(t, "kill-relay", true)
	require.NoError(t, r.path.Relay.Start()) // make relay-start
	require.False(t, r.switchNamed("kill-relay").On)

	r.path.Relay.Stop(t.Context()) // make relay-stop
	require.False(t, r.switchNamed("kill-relay").On)
	var notNow local.NotNowError
	_, err := r.switches.set(t.Context(), "kill-relay", true)
	require.ErrorAs(t, err, &notNow)
	require.ErrorContains(t, err, "the relay is down already")
	require.Equal(t, err.Error(), r.switchNamed("kill-relay").Error)
	require.NoError(t, r.path.Relay.Start())

	r.switched(t, "bus-down", true)
	for _, fault := range r.path.AWS.Faults().List() {
		fault.Off()
	}
	require.False(t, r.switchNamed("bus-down").On)
	require.Empty(t, r.switches.faultsAt(6))
	require.True(t, r.switched(t, "bus-down", true).On)
	require.Len(t, r.path.AWS.Faults().List(), 1)

	r.switched(t, "stop-postgres", true)
	for _, name := range []string{"drop-slot", "two-relays"} {
		_, err := r.switches.set(t.Context(), name, true)
		require.ErrorAs(t, err, &notNow)
		require.ErrorContains(t, err, "PostgreSQL is stopped")
	}
	_, err = r.switches.set(t.Context(), "poison", false)
	require.ErrorAs(t, err, &notNow)
	_, err = r.switches.set(t.Context(), "none", true)
	require.ErrorIs(t, err, errNoSwitch)

	require.NoError(t, r.switches.allOff(t.Context()))
	r.switched(t, "kill-relay", true) // forgets the error
	r.switched(t, "kill-relay", false)
	r.switched(t, "drop-slot", true)
	r.switched(t, "two-relays", true)
	r.switched(t, "kill-relay", true)
	require.NoError(t, r.create(t.Context(), 5))
	labtest.Eventually(t, "the second relay to take over", func() bool { return r.totals().OnTheWay == 0 })
	require.Equal(t, []string{"kill-relay", "two-relays"}, r.switches.faultsAt(3))

	// Either of the two relays may have been killed. A relay that was sent away no longer counts as
	// killed.
	require.NoError(t, r.path.Relay.Start())
	require.NoError(t, r.path.SecondRelay.Start())
	r.path.SecondRelay.Kill(t.Context())
	require.Equal(t, []string{"kill-relay", "two-relays"}, r.switches.faultsAt(3))
	r.switched(t, "two-relays", false)
	require.Empty(t, r.switches.faultsAt(3))
	require.NoError(t, r.switches.allOff(t.Context()))
	r.requireWhole(t)
}

// Faults strike only what this program has started, and never an external server.
func TestSwitchesForWhatIsTheUsersOwn(t *testing.T) {
	t.Parallel()
	own := newSwitches(&local.Path{}, slog.New(slog.DiscardHandler))
	disabled := 0
	for _, d := range own.definitions() {
		if strings.Contains(d.Name, "relay") {
			require.Empty(t, d.Disabled)
			continue
		}
		disabled++
		require.Contains(t, d.Disabled, "not ours to break", d.Name)
		_, err := own.set(t.Context(), d.Name, true)
		var notNow local.NotNowError
		require.ErrorAs(t, err, &notNow, d.Name)
	}
	require.Equal(t, 8, disabled)
	var notNow local.NotNowError
	require.ErrorAs(t, newTour(own, nil, nil).start(3, false), &notNow)
}

// The page has a switch for every fault of the list.
func TestEachFaultHasASwitch(t *testing.T) {
	t.Parallel()
	definitions := newSwitches(&local.Path{}, slog.New(slog.DiscardHandler)).definitions()
	for i, f := range faults.Of(&local.Path{}) {
		require.Equal(t, f.Name, definitions[i].Name)
		require.Equal(t, f.Once(), definitions[i].StrikesOnce)
	}
}

// Ctrl-C in the middle of the worst: PostgreSQL is stopped, an experiment runs, a second relay stands by. It ends at once, and the next
// `make dev` on that folder finds every event.
func TestEndsWhileBroken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, dir)
	require.NoError(t, r.create(t.Context(), 20))
	r.switched(t, "two-relays", true)
	require.NoError(t, r.tour.start(2, true))
	r.stepTo(t, 2)
	require.NoError(t, r.tour.goOn())
	labtest.Eventually(t, "PostgreSQL to be stopped", func() bool { return r.tour.state().Step == 3 })
	r.end()
	require.Contains(t, r.tour.state().Results[0].Text, "Stopped before its end.")
	_, err := r.switches.set(t.Context(), "bus-down", true)
	require.ErrorContains(t, err, "make dev is ending")
	require.ErrorContains(t, r.tour.start(1, false), "make dev is ending")

	r = newRig(t, dir)
	r.requireWhole(t)
	var rows int
	require.NoError(t, r.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&rows))
	require.Equal(t, 41, rows)
	labtest.Eventually(t, "every event on the bus", func() bool {
		ids := map[string]bool{}
		err := awslocal.ReadBus(r.path.AWSDir(), func(e awslocal.BusEvent) error {
			var detail struct{ EventID string }
			err := json.Unmarshal(e.Detail, &detail)
			ids[detail.EventID] = true
			return err
		})
		return err == nil && len(ids) == rows
	})
}
