//go:build peers

package compare_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// faults return a cell of the table. Each proves first that it struck.
var faults = []struct {
	name    string
	ofSlots bool // concerns only relays that read a slot
	run     func(t *testing.T, p peer, events int) string
}{
	{"kill -9, catching up", false, func(t *testing.T, p peer, events int) string { return kill(t, p, events, true) }},
	{"kill -9, rows come", false, func(t *testing.T, p peer, events int) string { return kill(t, p, events, false) }},
	{"1 % of records refused", false, refuse},
	{"table out of publication", true, unpublish},
	{"row-level security", false, hide},
}

// kill kills the relay after a quarter of the events, which were committed before it began or while it runs.
func kill(t *testing.T, p peer, events int, before bool) string {
	r := newStream(t, p)
	r.makeSlot(t)
	r.commit(t, 1, 1)
	if before {
		r.commit(t, 2, events/aggregates)
	}
	r.start(t, r.slot)
	if !before {
		require.NoError(t, r.arrivals.Wait(t.Context(), aggregates, labtest.Patience), "%s", r.log)
		r.commit(t, 2, events/aggregates)
	}
	require.NoError(t, r.arrivals.Wait(t.Context(), events/4, labtest.Patience), "%s", r.log)
	r.kill(t)
	require.Error(t, r.arrivals.Wait(t.Context(), events, 0), "every event had arrived before the kill")
	r.start(t, r.slot)
	v := r.verdict(t)
	if v.Lost > 0 {
		require.True(t, r.isPast(t), "late, not lost")
	}
	return cell(v)
}

func refuse(t *testing.T, p peer, events int) string {
	r := newStream(t, p)
	r.makeSlot(t)
	r.commit(t, 1, events/aggregates)
	refused := r.server.Faults().Add(awslocal.Fault{
		Service: "kinesis", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Rate: refusedShare, Seed: seed,
	})
	r.start(t, r.slot)
	v := r.verdict(t)
	require.Greater(t, refused.Struck(), events/200, "records refused")
	return fmt.Sprintf("%s of %d refused", cell(v), refused.Struck())
}

// unpublish takes the table out of the publication for a third of the events.
func unpublish(t *testing.T, p peer, events int) string {
	r := newStream(t, p)
	r.makeSlot(t)
	r.start(t, r.slot)
	third := events / aggregates / 3
	r.commit(t, 1, third)
	require.NoError(t, r.arrivals.Wait(t.Context(), third*aggregates, labtest.Patience), "%s", r.log)

	r.exec(t, "ALTER PUBLICATION outbox_publication DROP TABLE outbox")
	require.False(t, r.holds(t, "EXISTS (SELECT FROM pg_publication_tables WHERE pubname = 'outbox_publication')"))
	r.commit(t, third+1, 2*third)
	labtest.Eventually(t, "the relay to notice or to confirm", func() bool { return r.ended() || r.isPast(t) })
	noticed := r.ended()
	r.exec(t, "ALTER PUBLICATION outbox_publication ADD TABLE outbox")
	r.commit(t, 2*third+1, 3*third)
	if !noticed {
		return fmt.Sprintf("goes on, %d of %d missing", r.verdict(t).Lost, 3*third*aggregates)
	}
	// What it says to do about it.
	r.exec(t, "SELECT pg_drop_replication_slot($1)", r.slot)
	r.start(t, r.slot)
	return fmt.Sprintf("stops; after its slot is dropped %s", cell(r.verdict(t)))
}

// hide lets the relay begin, without a slot, on a table of which a policy shows it nothing, and commits the second half of the
// events while it runs.
func hide(t *testing.T, p peer, events int) string {
	r := newStream(t, p)
	half := events / aggregates / 2
	r.commit(t, 1, half)
	table := map[bool]string{true: "watermill_outbox", false: "outbox"}[p.polls]
	r.as(t, r.slot)
	if p.polls {
		r.exec(t, fmt.Sprintf("GRANT ALL ON watermill_outbox, watermill_offsets_outbox TO %s", r.slot))
	}
	r.exec(t, fmt.Sprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", table))
	conn, err := pgx.Connect(t.Context(), r.login)
	require.NoError(t, err)
	var rows int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows))
	require.Zero(t, rows, "rows that the relay's user sees")
	require.NoError(t, conn.Close(t.Context()))

	r.start(t, r.slot)
	labtest.Eventually(t, "the relay to end or to read", func() bool {
		return r.ended() || r.holds(t, "EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)", r.slot) ||
			p.polls && r.holds(t, "EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND query ~ 'watermill')", r.slot)
	})
	if r.ended() {
		require.False(t, r.holds(t, "EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", r.slot), "a slot would say that the load was done")
		return "stops with an error"
	}
	r.commit(t, half+1, 2*half)
	return fmt.Sprintf("goes on, %d of %d missing", r.verdict(t).Lost, 2*half*aggregates)
}
