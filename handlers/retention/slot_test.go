package retention_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/pgtest"
)

// Whatever is wrong with the slot, no row is deleted, and the error says what is wrong. The deleting statement refuses by itself, too.
func TestNothingIsDeletedWithoutAGoodSlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil   func(*testing.T, *rig)
		message string // with the slot's name in place of %
		struck  string // a condition on the slot
	}{
		"Missing": {
			func(t *testing.T, r *rig) { r.dropSlot(t) },
			"does not exist, so nothing proves that rows are published, and none is deleted", "",
		},
		"OfAnotherDatabase": {
			func(t *testing.T, r *rig) {
				other := pgtest.New(t)
				r.dropSlot(t)
				_, err := other.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
				require.NoError(t, err)
			},
			"so it says nothing of this outbox", "wal_status = 'reserved' AND database <> current_database()",
		},
		"Temporary": {
			func(t *testing.T, r *rig) {
				r.dropSlot(t)
				conn, err := pgx.Connect(t.Context(), r.url)
				require.NoError(t, err)
				t.Cleanup(func() { _ = conn.Close(context.Background()) })
				_, err = conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)", r.slot)
				require.NoError(t, err)
			},
			"it is temporary", "wal_status = 'reserved' AND temporary",
		},
		"Physical": {
			func(t *testing.T, r *rig) {
				r.dropSlot(t)
				r.exec(t, "SELECT pg_create_physical_replication_slot($1, true)", r.slot)
				t.Cleanup(func() { r.dropSlot(t) })
			},
			`it is of database ""`, "wal_status = 'reserved' AND database IS NULL",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.rows(t, "older", 3, 15)
			test.spoil(t, r)
			if test.struck != "" {
				require.Equal(t, "true", r.ask(t, "SELECT ("+test.struck+")::text FROM pg_replication_slots WHERE slot_name = $1", r.slot))
			}
			requireRefused(t, r, test.message)
		})
	}
}

// requireRefused requires that Purge and Plan refuse with this error, and that the deleting statement refuses without an earlier look.
func requireRefused(t *testing.T, r *rig, message string) {
	t.Helper()
	before := r.kept(t)
	purger := r.purger(t, short)
	result, err := purger.Purge(t.Context(), r.conn)
	require.ErrorContains(t, err, "replication slot "+r.slot)
	require.ErrorContains(t, err, message)
	require.Zero(t, result.Deleted)
	_, err = purger.Plan(t.Context(), r.conn)
	require.ErrorContains(t, err, message)

	require.Zero(t, r.delete(t, "0/0"))
	require.Equal(t, before, r.kept(t))
}

// delete runs the deleting statement for all rows that are due, as if somebody had looked at the slot.
func (r *rig) delete(t *testing.T, lsn string) int64 {
	t.Helper()
	ids, err := dbgen.New(r.conn).RetentionDue(t.Context(), dbgen.RetentionDueParams{Hours: 14 * 24, MaxRows: 100})
	require.NoError(t, err)
	require.NotEmpty(t, ids)
	n, err := dbgen.New(r.conn).RetentionDelete(t.Context(), dbgen.RetentionDeleteParams{Ids: ids, Slot: r.slot, LSN: lsn})
	require.NoError(t, err)
	return n
}

// A slot that fell behind max_slot_wal_keep_size is first in danger, and with the next checkpoint gone for good.
func TestNothingIsDeletedByALostSlot(t *testing.T) {
	t.Parallel()
	r := newServer(t, map[string]string{
		"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "1GB", "checkpoint_timeout": "1h",
	})
	status := func() string {
		return r.ask(t, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", r.slot)
	}
	r.rows(t, "older", 3, 15)
	require.Equal(t, "reserved", status())
	for range 4 { // segments
		r.exec(t, "SELECT pg_logical_emit_message(true, 'fill', repeat('x', 1000000))")
		r.exec(t, "SELECT pg_switch_wal()")
	}
	require.Equal(t, "unreserved", status())
	requireRefused(t, r, "(wal_status unreserved, active false) has confirmed ")
	r.exec(t, "CHECKPOINT")
	require.Equal(t, "lost", status())
	requireRefused(t, r, "it is about to lose its WAL or has lost it")
}

func TestNothingIsDeletedWhileTheSlotIsBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	confirmed := r.ask(t, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", r.slot)
	result, err := r.purger(t, short).Purge(t.Context(), r.conn)
	require.ErrorContains(t, err, "replication slot "+r.slot+" (wal_status reserved, active false) has confirmed "+confirmed+", and rows wait for ")
	require.ErrorContains(t, err, "not confirmed within 500ms")
	require.Zero(t, result.Deleted)
	n := r.delete(t, r.insertLSN(t))
	require.Zero(t, n, "the statement looks at the position, too")
	require.Equal(t, "older 3", r.kept(t))

	r.follow(t) // and when it has caught up
	result, err = r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 3, result.Deleted)
}

// There is no gap between the look and the deletion, because the statement looks itself.
func TestASlotThatGoesBeforeTheDeletionKeepsTheRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	struck := 0
	r.hook.after = func(query string, _ int64) {
		if query == "RetentionPosition" {
			r.advance(t, r.insertLSN(t))
		}
	}
	r.hook.before = func(query string) {
		if query == "RetentionDelete" {
			struck++
			r.dropSlot(t)
		}
	}
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.Equal(t, 1, struck)
	require.ErrorContains(t, err, "does not exist")
	require.Zero(t, result.Deleted)
	require.Equal(t, "older 3", r.kept(t))
}

// created_at is the start of the writing transaction. One that was open for long commits rows that are due at once, and of which the
// slot knows nothing. Wherever its commit falls, they stay until the slot has confirmed that commit.
func TestRowsOfALongTransactionStayUntilTheSlotHasPassedItsCommit(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]string{
		"CommittedBetweenIDsAndPosition":    "RetentionDue",
		"CommittedBetweenPositionAndDelete": "RetentionPosition",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.rows(t, "older", 3, 15)
			ctx := t.Context()
			long, err := r.pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { _ = long.Rollback(ctx) }()
			_, err = long.Exec(ctx, insert, "long", 2, 15)
			require.NoError(t, err)
			struck := false
			r.hook.after = func(ended string, _ int64) {
				if ended != query || struck {
					return
				}
				struck = true
				confirmed := r.insertLSN(t) // all that the slot will ever confirm here
				r.advance(t, confirmed)
				require.NoError(t, long.Commit(ctx))
			}
			result, err := r.purger(t, short).Purge(ctx, r.conn)
			require.True(t, struck)
			require.ErrorContains(t, err, "not confirmed within", "the long transaction's rows are due now, and not confirmed")
			require.Contains(t, r.kept(t), "long 2")
			require.Equal(t, "2", r.ask(t, "SELECT count(*)::text FROM outbox WHERE aggregate_id = 'long' AND created_at < now() - interval '14 days'"))
			if query == "RetentionPosition" {
				require.EqualValues(t, 3, result.Deleted, "the others were confirmed")
			}

			r.follow(t)
			_, err = r.purger(t, nil).Purge(ctx, r.conn)
			require.NoError(t, err)
			require.Empty(t, r.kept(t))
		})
	}
}

// With synchronous_commit off a row is seen before its commit is flushed. The position must be behind the commit all the same.
func TestThePositionIsBehindCommitsThatAreNotFlushed(t *testing.T) {
	t.Parallel()
	r := newServer(t, map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"})
	unflushed := 0
	for range 50 {
		r.rows(t, uuid.NewString(), 1, 15)
		committed := r.insertLSN(t)
		position, err := dbgen.New(r.conn).RetentionPosition(t.Context())
		require.NoError(t, err)
		require.Equal(t, "true", r.ask(t, "SELECT ($1::pg_lsn >= $2::pg_lsn)::text", position.LSN, committed))
		if r.ask(t, "SELECT (pg_current_wal_flush_lsn() < $1::pg_lsn)::text", committed) == "true" {
			unflushed++
		}
	}
	require.NotZero(t, unflushed)
}

// The wait ends with the context, because a Lambda function must not hang in it.
func TestACancelledWaitEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.hook.after = func(query string, _ int64) {
		if query == "RetentionPosition" {
			cancel()
		}
	}
	_, err := r.purger(t, func(c *retention.Config) { c.Wait = time.Hour }).Purge(ctx, r.conn)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "older 3", r.kept(t))
}
