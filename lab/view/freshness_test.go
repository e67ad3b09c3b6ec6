package view

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func TestPauseAfterAPollIsBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, pollGap, pause(0))
	require.Equal(t, 400*time.Millisecond, pause(20*time.Millisecond))
	require.Equal(t, 2*time.Second, pause(3*time.Second))
}

// While a poll hangs, events are committed that the page does not know.
func TestAnOldReadingIsNotCurrent(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 1))
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 1, OnBus: 1})
	labtest.Eventually(t, "a reading after the last change", func() bool { return r.frame().Reading.Current })
	r.stopRelay(t)
	tx, err := r.connect(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE car_stats") // A poll waits for this lock. createCar does not.
	require.NoError(t, err)
	require.NoError(t, r.create(t.Context(), 3))
	f := r.frame()
	require.False(t, f.Reading.Current, "%+v", f.Reading)
	before := f.Reading.AgeMs
	labtest.Eventually(t, "the reading to age", func() bool { return r.frame().Reading.AgeMs > before+500 })
	f = r.frame()
	require.Zero(t, f.Totals.OnTheWay, "what would be a lie if it were current")
	require.False(t, f.Reading.Current)
	require.NoError(t, tx.Rollback(t.Context()))
	r.requireTotals(t, totals{Cars: 4, Counted: 1, Committed: 4, OnBus: 1, OnTheWay: 3})
	labtest.Eventually(t, "a reading after the last change", func() bool { return r.frame().Reading.Current })
	require.NoError(t, r.path.Relay.Start())
	r.requireTotals(t, totals{Cars: 4, Counted: 4, Committed: 4, OnBus: 4})
}

// No station counts more events than were committed, unless an event went twice.
func TestStationsCountByOneClock(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.load.set(100)
	labtest.Eventually(t, "a few hundred events", func() bool {
		f := r.frame()
		for _, one := range f.Stations[2:] {
			require.LessOrEqual(t, one.Total, f.Stations[1].Total, "%+v", f.Stations)
		}
		return f.Stations[5].Total > 300
	})
	r.load.set(0)
}

// Totals that disagree while nothing is on its way do not become right by waiting.
func TestSettledSaysThatWaitingDoesNotHelp(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.NoError(t, r.create(t.Context(), 3))
	r.requireTotals(t, totals{Cars: 3, Counted: 3, Committed: 3, OnBus: 3})
	labtest.Eventually(t, "nothing on its way", func() bool { return r.frame().Reading.Settled })
	conn := r.connect(t)
	_, err := conn.Exec(t.Context(), "DELETE FROM car_stats")
	require.NoError(t, err)
	r.requireTotals(t, totals{Cars: 3, Counted: 0, Committed: 3, OnBus: 3})
	labtest.Eventually(t, "nothing on its way", func() bool { return r.frame().Reading.Settled })
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE inbox") // the subscriber waits
	require.NoError(t, err)
	require.NoError(t, r.create(t.Context(), 2))
	labtest.Eventually(t, "both events on the bus", func() bool { return r.totals().OnBus == 5 })
	require.False(t, r.frame().Reading.Settled, "two messages are in the queue")
	require.NoError(t, tx.Rollback(t.Context()))
	labtest.Eventually(t, "the subscriber", func() bool { f := r.frame(); return f.Reading.Settled && f.Totals.Counted == 2 })
}
