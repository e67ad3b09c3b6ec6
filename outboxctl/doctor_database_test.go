package outboxctl

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
)

// One server is whole at first. Then one part after the other breaks.
func TestDoctorOfTheDatabase(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, map[string]string{
		"max_prepared_transactions": "2", "max_wal_size": "64MB", "min_wal_size": "32MB",
		"autovacuum": "off", // its transactions would be the oldest
	})
	stop := r.startRelay(t)
	retained := func(t *testing.T) check { return named(r.doctor().database(t.Context()), "retained WAL")[0] }
	limit := func(t *testing.T, megabytes int64) {
		t.Helper()
		r.exec(t, fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB'", megabytes))
		r.exec(t, "SELECT pg_reload_conf()")
		r.eventually(t, "the new limit", func() bool { return strings.Contains(retained(t).Finding, "of "+size(megabytes<<20)) })
	}

	t.Run("WarnsWhereTheWALHasNoLimit", func(t *testing.T) {
		require.Equal(t, stateWarn, retained(t).State)
		require.Contains(t, retained(t).Finding, "without a limit")
		limit(t, 1024)
	})

	t.Run("FindsNothingWhereNothingIsWrong", func(t *testing.T) {
		var result result
		r.eventually(t, "a slot that has confirmed", func() bool {
			result = r.run(t, "doctor")
			return result.code == 0
		})
		require.NotContains(t, result.out, "FAIL")
		require.NotContains(t, result.out, "warn")
		require.NotContains(t, result.out, "skip")
		require.Equal(t, "21 checks: 0 failed, 0 to think about", result.lastLine())
		report := decode[doctorReport](t, r.run(t, "doctor", "--json"))
		require.Len(t, report.Checks, 21)
		require.Equal(t, 2, r.run(t, "doctor", "now").code)
	})

	t.Run("SeesASlotThatNobodyOfOursMade", func(t *testing.T) {
		r.exec(t, "SELECT pg_create_logical_replication_slot('probe', 'test_decoding'), pg_create_physical_replication_slot('copy')")
		r.exec(t, "CREATE DATABASE elsewhere")
		elsewhere := r.db.Pool.Config().ConnConfig.Copy()
		elsewhere.Database = "elsewhere"
		conn, err := pgx.ConnectConfig(t.Context(), elsewhere)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')")
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
		// A load's slot is walrelay's, and goes with its session.
		loading, err := r.db.Pool.Acquire(t.Context())
		require.NoError(t, err)
		_, err = loading.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('relay_load_7', 'pgoutput', true)")
		require.NoError(t, err)
		requireOnly(t, r.doctor().database(t.Context()), stateWarn, "other slots",
			"2 slots that rows can be read through, too: copy (physical, the whole server), probe (test_decoding)")
		require.NoError(t, loading.Hijack().Close(t.Context()))
		r.exec(t, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name IN ('probe', 'copy', 'theirs')")
		requireOnly(t, r.doctor().database(t.Context()), stateOK, "other slots", "none")
	})

	t.Run("SeesAnOldTransaction", func(t *testing.T) {
		tx, err := r.db.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		d := r.doctor()
		d.oldTransaction = 0
		requireOnly(t, d.database(t.Context()), stateOK, "transactions", "none") // it has written nothing
		_, err = tx.Exec(t.Context(), "SELECT pg_current_xact_id()")
		require.NoError(t, err)
		requireOnly(t, d.database(t.Context()), stateFail, "transactions", "is open for ")
		d.oldTransaction = time.Hour
		requireOnly(t, d.database(t.Context()), stateOK, "transactions", "is open for ")
	})

	t.Run("SeesAPreparedTransaction", func(t *testing.T) {
		r.exec(t, "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
		d := r.doctor()
		d.oldTransaction = 0
		checks := d.database(t.Context())
		requireOnly(t, checks, stateFail, "transactions", "is open for")
		require.Contains(t, named(checks, "transactions")[0].Do, "forgotten")
		r.exec(t, "ROLLBACK PREPARED 'forgotten'")
	})

	t.Run("SaysThatItDoesNotSeeThem", func(t *testing.T) {
		r.exec(t, "CREATE ROLE looker LOGIN PASSWORD 'x' IN ROLE outbox_relay")
		d := r.doctor()
		looker := *r.setup
		looker.DatabaseURL = strings.Replace(r.db.URL, r.db.URL[strings.Index(r.db.URL, "//")+2:strings.Index(r.db.URL, "@")], "looker:x", 1)
		d.Setup = &looker
		requireOnly(t, d.database(t.Context()), stateWarn, "transactions", "looker does not see")
	})

	t.Run("SeesAClockThatIsWrong", func(t *testing.T) {
		d := r.doctor()
		d.now = func() time.Time { return time.Now().Add(-time.Hour) }
		requireOnly(t, d.database(t.Context()), stateFail, "database clock", "off ours")
		d.now = func() time.Time { return time.Now().Add(time.Minute) }
		requireOnly(t, d.database(t.Context()), stateWarn, "database clock", "off ours")
	})

	t.Run("SeesAChangeThatIsOpen", func(t *testing.T) {
		tx, err := r.db.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, err = tx.Exec(t.Context(), "ALTER PUBLICATION outbox_publication SET (publish = 'update')")
		require.NoError(t, err)
		requireOnly(t, r.doctor().database(t.Context()), stateWarn, "publication", "an open transaction changes table outbox or its publication")
	})

	t.Run("SeesWhoMayCreateInTheSchema", func(t *testing.T) {
		r.exec(t, "CREATE ROLE creator; GRANT CREATE ON SCHEMA public TO creator, PUBLIC")
		checks := r.doctor().database(t.Context())
		requireOnly(t, checks, stateWarn, "publication", "in schema public, which can change what a statement means: PUBLIC, creator")
		r.exec(t, "REVOKE CREATE ON SCHEMA public FROM creator, PUBLIC; DROP ROLE creator")
	})

	t.Run("SeesAPublicationThatLeavesOutRows", func(t *testing.T) {
		published := func() check { return named(r.doctor().database(t.Context()), "publication")[0] }
		r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'update')") // which ends the relay at its next look
		require.Equal(t, stateFail, published().State)
		require.Contains(t, published().Finding, "does not publish every insert into public.outbox (it leaves inserts out)")
		require.Contains(t, published().Do, "SET (publish = 'insert')")
		r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'insert')")
		require.Equal(t, stateOK, published().State)
		require.Contains(t, published().Finding, "publishes every insert")
	})

	stop()
	t.Run("SeesASlotThatNobodyReads", func(t *testing.T) {
		r.eventually(t, "the slot to be free", func() bool {
			return strings.Contains(named(r.doctor().database(t.Context()), "slot")[0].Finding, "nobody")
		})
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", "relay is read by nobody")
		require.Regexp(t, `nobody( since 2\d{3}-.*)?: events wait`, named(r.doctor().database(t.Context()), "slot")[0].Finding) // since 17
		require.Equal(t, 1, r.run(t, "doctor").code)
	})

	t.Run("SeesThatNothingIsConfirmed", func(t *testing.T) {
		r.exec(t, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 70)")
		r.eventually(t, "all of it in the WAL", func() bool { // what no commit waits for is written a moment later
			checks := r.doctor().database(t.Context())
			backlog, wal := named(checks, "backlog")[0], named(checks, "retained WAL")[0]
			return backlog.State == stateFail && strings.Contains(backlog.Finding, "not getting less") &&
				wal.State == stateOK && strings.Contains(wal.Finding, "of 1.0 GiB")
		})
	})

	t.Run("SeesHowLongTheLimitLasts", func(t *testing.T) {
		look := func() dbgen.SlotHealthRow {
			slot, err := dbgen.New(r.db.Pool).SlotHealth(t.Context(), r.slot)
			require.NoError(t, err)
			return slot
		}
		first := look()
		r.exec(t, "SELECT pg_logical_emit_message(true, 'fill', repeat('x', 1000000)) FROM generate_series(1, 20)")
		second := look()
		require.True(t, second.LookedAt.After(first.LookedAt))
		for pause, left := range map[time.Duration]struct {
			state state
			text  string
		}{time.Second: {stateFail, "s left"}, time.Hour: {stateOK, "h"}} {
			second.LookedAt = first.LookedAt.Add(pause)
			found := judgeRetained(1024, first, second)
			require.Equal(t, left.state, found.State, "%v", found)
			require.Contains(t, found.Finding, "a second more: ")
			require.Contains(t, found.Finding, left.text)
		}
	})

	t.Run("SeesThatTheLimitIsNear", func(t *testing.T) {
		var bytes int64
		require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots").Scan(&bytes))
		limit(t, bytes>>20*100/93)
		require.Equal(t, stateFail, retained(t).State)
	})

	t.Run("SeesASlotThatIsLost", func(t *testing.T) {
		r.eventually(t, "the slot to be lost", func() bool {
			r.exec(t, "SELECT pg_switch_wal(), pg_logical_emit_message(false, 'fill', repeat('x', 1000000))")
			r.exec(t, "CHECKPOINT")
			return strings.Contains(named(r.doctor().database(t.Context()), "slot")[0].Finding, "lost:")
		})
		checks := r.doctor().database(t.Context())
		requireOnly(t, checks, stateFail, "slot", "relay is lost")
		require.Contains(t, named(checks, "slot")[0].Do, "SELECT pg_drop_replication_slot('relay')")
		require.Equal(t, stateSkip, named(checks, "retained WAL")[0].State)
	})

	t.Run("SeesASlotThatIsMissing", func(t *testing.T) {
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", "relay does not exist")
	})

	t.Run("AsksOfTheTableUnderDMS", func(t *testing.T) {
		r.exec(t, "SELECT pg_create_logical_replication_slot('relay', 'test_decoding')")
		r.exec(t, "ALTER PUBLICATION outbox_publication DROP TABLE outbox")
		under := func() check { return named(r.doctor().database(t.Context()), "publication")[0] }
		require.Equal(t, stateOK, under().State, "%v", under())
		require.Contains(t, under().Finding, "DMS does not use it")
		r.exec(t, "ALTER TABLE outbox REPLICA IDENTITY NOTHING")
		require.Equal(t, stateFail, under().State)
		require.Contains(t, under().Finding, "the replica identity of public.outbox has no aggregate_id")
		r.exec(t, "ALTER TABLE outbox REPLICA IDENTITY DEFAULT")
		r.exec(t, "ALTER PUBLICATION outbox_publication ADD TABLE outbox")
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
	})

	t.Run("SeesASlotOfAnotherPlugin", func(t *testing.T) {
		r.exec(t, "SELECT pg_create_physical_replication_slot('relay')")
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", `is for plugin ""`)
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
	})

}

func TestDoctorOfASlotTimeout(t *testing.T) {
	t.Parallel()
	require.Equal(t, stateOK, judgeSlotTimeout("0").State)
	found := judgeSlotTimeout("3600")
	require.Equal(t, stateWarn, found.State)
	require.Contains(t, found.Finding, "is 3600 s: a relay that is away for longer loses its slot")
}

func TestDoctorOfAServerWithoutLogicalWAL(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, map[string]string{"wal_level": "replica"})
	checks := r.doctor().database(t.Context())
	require.Equal(t, stateFail, named(checks, "wal_level")[0].State)
	require.Contains(t, named(checks, "wal_level")[0].Do, "rds.logical_replication")
}
