package walrelay_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/postgres/postgrestest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// standbySlot is the physical slot of every standby here.
const standbySlot = "standby"

// pair is a primary and its standby, which are two servers. The relays of the rig reach the server that the endpoint leads to. The rig's
// own sessions go to the primary.
type pair struct {
	*rig
	primary, standby *postgres.Server
	standbyDir       string
	binaries         string
	endpoint         *postgres.Endpoint
}

func newPair(t *testing.T) *pair {
	t.Helper()
	server, config := postgrestest.Start(t, nil)
	p := &pair{rig: newRigOn(t, postgrestest.Migrate(t, server), "relay"), primary: server, binaries: config.Binaries}
	var major int
	require.NoError(t, p.db.Pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&major))
	if major < 17 {
		t.Skip("PostgreSQL 17 brought failover slots")
	}
	var err error
	p.endpoint, err = postgres.NewEndpoint(server)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.endpoint.Close() })
	p.db.URL = p.endpoint.URL()
	return p
}

// addStandby makes a standby of the primary. Commits wait for it, and so does what the slot sends.
func (p *pair) addStandby(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // as root the server runs as another user
	standby, err := postgres.StartStandby(t.Context(), postgres.Config{Dir: dir, Binaries: p.binaries}, p.primary, standbySlot)
	require.NoError(t, err)
	t.Cleanup(func() { _ = standby.Kill() })
	p.standby, p.standbyDir = standby, dir
	p.set(t, "synchronized_standby_slots", standbySlot)
	p.set(t, "synchronous_standby_names", standbySlot) // "*" would mean the relay as well
}

// set changes a setting of the primary.
func (p *pair) set(t *testing.T, name, value string) {
	t.Helper()
	p.exec(t, fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value))
	p.exec(t, "SELECT pg_reload_conf()")
	p.eventually(t, name, func() (set bool) {
		require.NoError(t, p.db.Pool.QueryRow(t.Context(), "SELECT current_setting($1) = $2", name, value).Scan(&set))
		return set
	})
}

func (p *pair) pool(t *testing.T, server *postgres.Server) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), server.URL())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// awaitFlushed waits until the standby has all that is committed. A commit waits for it only after the primary's checkpointer has read
// synchronous_standby_names, and that may be some time after a session shows the new value.
func (p *pair) awaitFlushed(t *testing.T) {
	t.Helper()
	var end string
	require.NoError(t, p.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&end))
	p.eventually(t, "the standby to have "+end, func() (has bool) {
		err := p.db.Pool.QueryRow(t.Context(), "SELECT coalesce(restart_lsn >= $2::text::pg_lsn, false) FROM pg_replication_slots WHERE slot_name = $1", standbySlot, end).Scan(&has)
		return err == nil && has
	})
}

// awaitSynced waits until the standby has all that is committed, and a copy of the slot that survives a promotion.
func (p *pair) awaitSynced(t *testing.T) {
	t.Helper()
	p.awaitFlushed(t)
	pool := p.pool(t, p.standby)
	p.eventually(t, "the slot on the standby", func() (synced bool) {
		p.exec(t, "SELECT pg_log_standby_snapshot()") // the server's own, which moves the slot, comes every 15 s
		err := pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)", p.slot).Scan(&synced)
		return err == nil && synced
	})
}

// promote makes the standby the primary. The old primary runs on, as far as the test has not ended it.
func (p *pair) promote(t *testing.T) (old *postgres.Server) {
	t.Helper()
	old = p.primary
	require.NoError(t, p.standby.Promote(t.Context()))
	p.primary, p.standby = p.standby, nil
	p.db.Pool = p.pool(t, p.primary)
	p.endpoint.LeadTo(p.primary)
	return old
}

// loads counts the records of a load.
func loads(records []outbox.Record) (n int) {
	for _, record := range records {
		if record.Operation == outbox.OperationLoad {
			n++
		}
	}
	return n
}

// The primary dies in the middle of a backlog. The relay goes on from the slot of the promoted standby, and loads nothing. Then the
// promoted server loses its standby in the same way.
func TestPromotionKeepsTheSlot(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.append(t, "old", 10, 1, 3) // only a load would send them again
	p.start(t)
	p.await(t, 30)
	for round := range 2 {
		p.addStandby(t)
		p.append(t, fmt.Sprint("before", round), 10, 1, 3)
		p.awaitSynced(t)
		before := len(p.arrived(t))
		p.fill(t, fmt.Sprint("backlog", round), 50, 40)
		p.eventually(t, "a part of the backlog", func() bool { return len(p.arrived(t)) > before+200 })
		require.NoError(t, p.primary.Kill())
		p.promote(t)
		p.append(t, fmt.Sprint("after", round), 10, 1, 3)
		p.requireWhole(t, p.await(t, 30+(round+1)*(30+2000+30)))
	}
	records := p.arrived(t)
	require.Equal(t, 30, loads(records), "the slot was kept")
	require.Less(t, len(records)-len(p.ids), 2*10_000, "what was sent since the slot was last synchronized comes twice")
	require.Equal(t, 1, strings.Count(p.logged(), "the slot was made a failover slot"))
}

// The standby has no copy of the slot yet, or one that is not complete. PostgreSQL then drops the copy, and the relay loads.
func TestPromotionWithoutTheSlot(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.append(t, "a", 10, 1, 3)
	stop := p.start(t)
	p.await(t, 30)
	p.streaming(t)
	require.NoError(t, stop())
	// The slot stands still from here on, before the standby's own WAL.
	p.exec(t, "SELECT pg_logical_emit_message(false, 'test', ''), pg_switch_wal()")
	p.addStandby(t)
	p.append(t, "b", 10, 1, 3)
	p.awaitFlushed(t)
	require.NoError(t, p.primary.Kill())
	p.promote(t)
	_, exists := p.slotState(t)
	require.False(t, exists, "a slot that is not complete")
	p.start(t)
	p.requireWhole(t, p.await(t, 60))
	require.Equal(t, 30+60, loads(p.arrived(t)))
}

// What the standby does not have is not sent. Otherwise the bus would have events whose transaction a promotion takes back. It holds for
// the slot's stream, and for a load.
func TestNothingIsSentThatAPromotionTakesBack(t *testing.T) {
	t.Parallel()
	for name, slotExists := range map[string]bool{"Stream": true, "Load": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.append(t, "a", 10, 1, 3)
			if slotExists {
				p.start(t)
				p.await(t, 30)
			}
			p.addStandby(t)
			p.append(t, "b", 10, 1, 3)
			p.awaitFlushed(t)
			if slotExists {
				p.await(t, 60)
				p.awaitSynced(t)
			}
			standby := p.standby
			p.set(t, "synchronous_standby_names", "") // or the commit would wait, too
			require.NoError(t, standby.Stop(t.Context()))
			p.append(t, "gone", 10, 1, 3)
			waiting := "waiting for the standby"
			if !slotExists {
				p.start(t)
				waiting = "synchronized_standby_slots"
			}
			// The relay has come as far as it can.
			p.eventually(t, waiting, func() (waits bool) {
				if !slotExists {
					return strings.Contains(p.logged(), "waiting_for=\"the standbys that synchronized_standby_slots names\"")
				}
				err := p.db.Pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'WaitForStandbyConfirmation')").Scan(&waits)
				return err == nil && waits
			})
			require.Zero(t, count(p.arrived(t), "gone"))
			require.NoError(t, p.primary.Kill())
			restarted, err := postgres.Start(t.Context(), postgres.Config{Dir: p.standbyDir, Binaries: p.binaries})
			require.NoError(t, err)
			t.Cleanup(func() { _ = restarted.Kill() })
			p.standby = restarted
			p.promote(t)
			p.append(t, "c", 10, 1, 3)
			p.requireWhole(t, p.await(t, 90))
		})
	}
}

// The old primary comes back, and a relay that knows nothing reads from it. What commits there is not sent, because its standby is gone.
// A relay that has worked with the new primary does not take the old one, wherever its address leads.
func TestOldPrimaryComesBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	stop := p.start(t)
	p.streaming(t)
	p.addStandby(t)
	p.append(t, "a", 10, 1, 3)
	p.await(t, 30)
	p.awaitSynced(t)
	oldURL := p.primary.URL()
	old := p.promote(t)
	// Sessions stay with the old server until they end. The relay's does here.
	oldPool := p.pool(t, old)
	_, err := oldPool.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'walrelay'")
	require.NoError(t, err)
	p.append(t, "b", 10, 1, 3)
	p.requireWhole(t, p.await(t, 60))

	config := p.config(t)
	config.Database = login(t, oldURL)
	zombie, err := walrelay.New(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- zombie.Run(ctx) }()
	t.Cleanup(cancel)
	_, err = oldPool.Exec(t.Context(), "SET synchronous_commit = local; "+strings.NewReplacer("$1", "'gone'", "$3::int", "3", "$2::int", "10").Replace(fillSQL))
	require.NoError(t, err)
	p.eventually(t, "the old primary's slot to wait", func() (waits bool) {
		err := oldPool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'WaitForStandbyConfirmation')").Scan(&waits)
		return err == nil && waits
	})

	cancel()
	require.NoError(t, <-ended)
	p.endpoint.LeadTo(old)
	p.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'walrelay'")
	p.eventually(t, "the relay to refuse the old primary", func() bool { return strings.Contains(p.logged(), "the server is an old primary") })
	p.eventually(t, "the server to let go of the zombie's slot", func() bool {
		_, err := oldPool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", p.slot)
		return err == nil
	})
	p.eventually(t, "the relay to load nothing from it either", func() bool { return strings.Contains(p.logged(), "initial load: the server is an old primary") })
	p.endpoint.LeadTo(p.primary)
	p.append(t, "c", 10, 1, 3)
	p.requireWhole(t, p.await(t, 90))
	require.Zero(t, count(p.arrived(t), "gone"))
	require.NoError(t, stop())
}

// Events do not wait for a slot that the server will not make a failover slot. Here it does not know the statement.
func TestASlotThatIsNoFailoverSlotIsReadAllTheSame(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy(t, func(_ *labtest.Proxy, _ bool, piece []byte) []byte {
		return bytes.ReplaceAll(piece, []byte("ALTER_REPLICATION_SLOT"), []byte("ALTER_REPLICATION_SLOX"))
	})
	r.append(t, "a", 10, 1, 3)
	r.start(t)
	r.requireWhole(t, r.await(t, 30))
	r.streaming(t)
	r.append(t, "b", 10, 1, 3)
	r.requireWhole(t, r.await(t, 60))
	var can bool
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int >= 170000").Scan(&can))
	require.Equal(t, can, strings.Contains(r.logged(), "the slot was not made a failover slot"))
}

// A slot that an older relay or another program made becomes a failover slot. The log says so once.
func TestOldSlotBecomesAFailoverSlot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var can bool
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int >= 170000").Scan(&can))
	r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
	r.append(t, "a", 10, 1, 3)
	for range 2 {
		stop := r.start(t)
		r.streaming(t)
		r.await(t, 30)
		require.NoError(t, stop())
	}
	var failover bool
	require.NoError(t, r.db.Pool.QueryRow(t.Context(),
		"SELECT coalesce((to_jsonb(s) ->> 'failover')::boolean, false) FROM pg_replication_slots AS s WHERE slot_name = $1", r.slot).Scan(&failover))
	require.Equal(t, can, failover)
	times := 0
	if can {
		times = 1
	}
	require.Equal(t, times, strings.Count(r.logged(), "the slot was made a failover slot"))
}

func count(records []outbox.Record, prefix string) (n int) {
	for _, record := range records {
		if strings.HasPrefix(record.Row.AggregateID, prefix) {
			n++
		}
	}
	return n
}
