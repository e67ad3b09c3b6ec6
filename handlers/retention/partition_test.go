package retention_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
)

// partition makes outbox partitioned by day. Its oldest partition ended 15 days ago.
func (r *rig) partition(t *testing.T) {
	t.Helper()
	config, err := pgx.ParseConfig(r.url)
	require.NoError(t, err)
	done, err := migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{})
	require.NoError(t, err)
	r.exec(t, strings.NewReplacer("FIRST", done.First, "UNTIL", done.Until.Format(time.RFC3339), "AGED", time.Now().AddDate(0, 0, -15).Format(time.RFC3339)).Replace(`
		BEGIN;
		ALTER TABLE outbox DETACH PARTITION FIRST;
		ALTER TABLE outbox ATTACH PARTITION FIRST FOR VALUES FROM ('AGED') TO ('UNTIL');
		CREATE TABLE outbox_aged (LIKE FIRST INCLUDING ALL);
		ALTER TABLE outbox ATTACH PARTITION outbox_aged FOR VALUES FROM (MINVALUE) TO ('AGED');
		COMMIT`))
}

const aged = "public.outbox_aged"

// partitions returns the names of outbox's partitions.
func (r *rig) partitions(t *testing.T) string {
	t.Helper()
	return r.ask(t, "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid) FROM pg_inherits WHERE inhparent = 'outbox'::regclass")
}

func TestAPartitionGoesInsteadOfItsRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	r.rows(t, "due", 3, 20)
	r.rows(t, "older", 3, 14) // in a partition that has younger rows, too
	r.rows(t, "younger", 3, 0)
	arrived := r.relay(t)
	labtest.Eventually(t, "the events", func() bool {
		events := arrived()
		return events["insert of due"] == 3 && events["insert of older"] == 3 && events["insert of younger"] == 3
	})
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Zero(t, result.Deleted)
	require.Equal(t, []string{aged}, result.Dropped)
	require.Equal(t, "older 3, younger 3", r.kept(t))
	again, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Empty(t, again.Dropped)
}

// runOut drops the partitions of later days. It returns the one of today, and the time at which the one before that ended.
func (r *rig) runOut(t *testing.T) (today, ended string) {
	t.Helper()
	for _, part := range strings.Fields(r.partitions(t)) {
		switch {
		case strings.Contains(part, "until"):
			today = part
		case "public."+part != aged:
			r.exec(t, "DROP TABLE "+part)
		}
	}
	return today, r.ask(t, `SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)') FROM pg_class WHERE oid = 'outbox_aged'::regclass`)
}

// A partition without an upper bound may hold rows that are seconds old. Its end is unknown, and unknown must not count as long ago.
func TestAPartitionWithoutAnEndStays(t *testing.T) {
	t.Parallel()
	for name, bounds := range map[string]string{
		"Default":  "DEFAULT",
		"Maxvalue": "FOR VALUES FROM ('AGED') TO (MAXVALUE)",
		"Infinity": "FOR VALUES FROM ('AGED') TO ('infinity')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.partition(t)
			first, end := r.runOut(t)
			r.exec(t, strings.NewReplacer("FIRST", first, "AGED", end).Replace(
				"BEGIN; ALTER TABLE outbox DETACH PARTITION FIRST; ALTER TABLE outbox ATTACH PARTITION FIRST "+bounds+"; COMMIT"))
			r.rows(t, "due", 3, 20)
			r.rows(t, "younger", 3, 0)
			arrived := r.relay(t)
			labtest.Eventually(t, "the events", func() bool { return arrived()["insert of younger"] == 3 })
			result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
			require.NoError(t, err)
			require.Equal(t, []string{aged}, result.Dropped)
			require.Equal(t, "younger 3", r.kept(t))
		})
	}
}

// What docs/operations.md says to do about a DEFAULT partition that somebody added, while the relay runs.
func TestADefaultPartitionGetsBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	first, end := r.runOut(t)
	bounds := strings.NewReplacer("FIRST", first, "AGED", end,
		"ENDED", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339),
		"TOMORROW", time.Now().AddDate(0, 0, 1).UTC().Format(time.DateOnly+"T00:00:00Z"), "NEXT", time.Now().AddDate(0, 0, 2).UTC().Format(time.DateOnly+"T00:00:00Z"))
	r.exec(t, bounds.Replace(`BEGIN;
		ALTER TABLE outbox DETACH PARTITION FIRST;
		ALTER TABLE outbox ATTACH PARTITION FIRST FOR VALUES FROM ('AGED') TO ('ENDED');
		CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT;
		COMMIT`))
	arrived := r.relay(t)
	r.rows(t, "before", 3, 0)
	labtest.Eventually(t, "the events", func() bool { return arrived()["insert of before"] == 3 })
	require.Equal(t, "3", r.ask(t, "SELECT count(*)::text FROM outbox_rest"))
	_, err := retention.AttachPartitions(t.Context(), r.conn)
	require.ErrorContains(t, err, `updated partition constraint for default partition "outbox_rest" would be violated by some row`)

	r.exec(t, bounds.Replace(`BEGIN;
		ALTER TABLE outbox DETACH PARTITION outbox_rest;
		ALTER TABLE outbox ATTACH PARTITION outbox_rest FOR VALUES FROM ('ENDED') TO ('TOMORROW');
		CREATE TABLE outbox_next (LIKE FIRST INCLUDING ALL);
		ALTER TABLE outbox ATTACH PARTITION outbox_next FOR VALUES FROM ('TOMORROW') TO ('NEXT');
		COMMIT`))
	attached, err := retention.AttachPartitions(t.Context(), r.conn)
	require.NoError(t, err)
	require.GreaterOrEqual(t, attached, 5, "as wide as the last one, which is a day")
	r.rows(t, "after", 3, 0)
	labtest.Eventually(t, "later events", func() bool { return arrived()["insert of after"] == 3 })
	_, err = r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Equal(t, "after 3, before 3", r.kept(t))
}

// Without a partition for it an insert fails. So partitions come also while none may go.
func TestPartitionsAreAttachedWithoutASlot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	attached, err := retention.AttachPartitions(t.Context(), r.conn)
	require.NoError(t, err)
	require.Zero(t, attached, "outbox is not partitioned")

	r.partition(t)
	r.dropSlot(t)
	r.exec(t, "DO $$ DECLARE part regclass; BEGIN FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'outbox'::regclass ORDER BY inhrelid DESC LIMIT 4 "+
		"LOOP IF part::text NOT LIKE '%until%' AND part::text NOT LIKE '%aged%' THEN EXECUTE format('DROP TABLE %s', part); END IF; END LOOP; END $$")
	before := len(strings.Fields(r.partitions(t)))
	_, err = r.purger(t, short).Purge(t.Context(), r.conn)
	require.ErrorContains(t, err, "does not exist")
	attached, err = retention.AttachPartitions(t.Context(), r.conn)
	require.NoError(t, err)
	require.Positive(t, attached)
	require.Len(t, strings.Fields(r.partitions(t)), before+attached)
	r.rows(t, "next week", 1, -6)
	attached, err = retention.AttachPartitions(t.Context(), r.conn)
	require.NoError(t, err)
	require.Zero(t, attached)
}

// What TestNothingIsDeletedWithoutAGoodSlot shows for rows. The dropping function refuses by itself, too.
func TestNoPartitionIsDroppedWithoutAGoodSlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil   func(*testing.T, *rig)
		message string
	}{
		"Missing": {func(t *testing.T, r *rig) { r.dropSlot(t) }, "does not exist"},
		"Behind":  {func(*testing.T, *rig) {}, "not confirmed within 500ms"},
		"OfDMS": {func(t *testing.T, r *rig) {
			r.dropSlot(t)
			r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.slot)
			r.advance(t, r.insertLSN(t))
		}, "AWS DMS does not follow partitions"},
		"Physical": {func(t *testing.T, r *rig) {
			r.dropSlot(t)
			r.exec(t, "SELECT pg_create_physical_replication_slot($1, true)", r.slot)
			t.Cleanup(func() { r.dropSlot(t) })
		}, `it is of database ""`},
		"Unpublished": {func(t *testing.T, r *rig) {
			r.advance(t, r.insertLSN(t))
			r.exec(t, "ALTER PUBLICATION outbox_publication DROP TABLE outbox")
		}, "the table is not part of it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.partition(t)
			r.rows(t, "due", 3, 20)
			test.spoil(t, r)
			result, err := r.purger(t, short).Purge(t.Context(), r.conn)
			require.ErrorContains(t, err, test.message)
			require.Empty(t, result.Dropped)
			require.Contains(t, r.partitions(t), "outbox_aged")
			if name == "Unpublished" {
				return // the function does not look at the publication
			}
			err = pgx.BeginFunc(t.Context(), r.conn, func(tx pgx.Tx) error {
				var dropped bool
				return tx.QueryRow(t.Context(), "SELECT outbox_partition_drop(outbox_partition_close('14 days'), $1, pg_current_wal_insert_lsn())", r.slot).Scan(&dropped)
			})
			require.NoError(t, err)
			require.Contains(t, r.partitions(t), "outbox_aged")
		})
	}
}

// A drop locks every writer out. One that cannot have the lock at once must not let writers queue behind it.
func TestADropDoesNotWaitForAnOpenTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	r.follow(t)
	ctx := t.Context()
	open, err := r.pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = open.Rollback(context.WithoutCancel(ctx)) }()
	_, err = open.Exec(ctx, insert, "open", 1, 0)
	require.NoError(t, err)
	tries := 0
	r.hook.before = func(query string) {
		if query == "SELECT" {
			tries++
			r.rows(t, strings.Repeat("x", tries), 1, 0) // no lock stands between the tries
		}
	}
	_, err = r.purger(t, func(c *retention.Config) { c.Wait = 3 * time.Second }).Purge(ctx, r.conn)
	require.ErrorContains(t, err, "canceling statement due to lock timeout")
	require.ErrorContains(t, err, "a transaction has kept a lock on table outbox for 3s")
	require.Positive(t, tries)
	r.hook.before = nil
	require.NoError(t, open.Commit(ctx))
	result, err := r.purger(t, nil).Purge(ctx, r.conn)
	require.NoError(t, err)
	require.Equal(t, []string{aged}, result.Dropped)
}

// The functions run with the owner's rights. So nobody else may call them, and no object of the caller stands in for theirs.
func TestOnlyRetentionTendsPartitions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	require.Equal(t, "nothing", r.ask(t, "SELECT coalesce(outbox_partition_close(NULL), 'nothing')"), "kept for an unknown time")
	require.Equal(t, "outbox_retention", r.ask(t, `SELECT string_agg(DISTINCT grantee::regrole::text, ' ') FROM pg_proc, aclexplode(proacl)
		WHERE proname LIKE 'outbox\_partition%' AND grantee <> proowner`))
	require.Equal(t, "3", r.ask(t, `SELECT count(*)::text FROM pg_proc WHERE proname LIKE 'outbox\_partition%' AND prosecdef
		AND 'search_path=""' = ANY (proconfig) AND proacl IS NOT NULL`))
	for _, call := range []string{
		"SELECT outbox_partition_drop('public.outbox_aged', $1, '0/0')", // not closed in this transaction
		"SELECT outbox_partition_drop('public.cars', $1, '0/0')",
	} {
		_, err := r.conn.Exec(t.Context(), call, r.slot)
		require.ErrorContains(t, err, "is not a partition of public.outbox that outbox_partition_close has returned in this transaction")
	}
}
