package walrelay_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

const oneDay = 24 * time.Hour

// partition makes outbox a partitioned table.
func (r *rig) partition(t *testing.T) {
	t.Helper()
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	_, err = migrate.Partition(t.Context(), config, oneDay, time.Hour, migrate.Options{})
	require.NoError(t, err)
}

// appendAt writes one event as if its transaction had begun some days from now.
func (r *rig) appendAt(t *testing.T, aggregateID string, version, days int) {
	t.Helper()
	r.exec(t, appendSQL, aggregateID, version, days)
}

const appendSQL = `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
	VALUES (gen_random_uuid(), 'Car', $1, $2, 'CarUpdated', '{}', now() + make_interval(days => $3))`

// tend runs retention as its function does. It returns the partitions that it dropped.
func (r *rig) tend(t *testing.T, wait time.Duration) (dropped []string, err error) {
	t.Helper()
	purger, err := retention.New(retention.Config{Slot: r.slot, Days: 14, StreamRetention: 168 * time.Hour, Wait: wait})
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), r.db.URL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), "SET ROLE outbox_retention")
	require.NoError(t, err)
	result, err := purger.Purge(t.Context(), conn)
	return result.Dropped, err
}

// age makes the partition that the table became one that ended so many days ago, and returns its name. The rows between go to another one.
func (r *rig) age(t *testing.T, days int) string {
	t.Helper()
	const name = "public.outbox_aged"
	r.exec(t, fmt.Sprintf(`DO $$
		DECLARE
			first regclass;
			until text;
		BEGIN
			SELECT inhrelid, substring(pg_get_expr(relpartbound, inhrelid) FROM $re$TO \('([^']+)'\)$re$) INTO first, until
			FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'outbox'::regclass ORDER BY 2 LIMIT 1;
			EXECUTE format('ALTER TABLE outbox DETACH PARTITION %%s', first);
			EXECUTE format('ALTER TABLE %%s RENAME TO outbox_aged', first);
			EXECUTE format('ALTER TABLE outbox ATTACH PARTITION outbox_aged FOR VALUES FROM (MINVALUE) TO (%%L)', date_trunc('day', now() - interval '%[1]d days'));
			CREATE TABLE outbox_between (LIKE outbox_aged INCLUDING ALL);
			EXECUTE format('ALTER TABLE outbox ATTACH PARTITION outbox_between FOR VALUES FROM (%%L) TO (%%L)', date_trunc('day', now() - interval '%[1]d days'), until);
		END $$`, days))
	return name
}

func TestAPartitionedOutboxIsReadThroughItsRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "streamed", 2, 1, 2)
	r.await(t, 4)
	require.NoError(t, stop())
	// Read only after the table has another name and is a partition.
	r.append(t, "unread", 2, 1, 2)
	r.partition(t)

	stop = r.start(t)
	r.await(t, 8)
	// Each version into another partition, and a transaction that writes into several.
	for version := 1; version <= 4; version++ {
		r.appendAt(t, "moves", version, version)
	}
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		if err := outbox.Append(t.Context(), tx, event("spans", 1)); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
			SELECT gen_random_uuid(), 'Car', 'spans', v, 'CarUpdated', '{}', now() + make_interval(days => v) FROM generate_series(2, 5) AS v`)
		return err
	}))
	var partitions int
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(DISTINCT tableoid) FROM outbox").Scan(&partitions))
	require.Greater(t, partitions, 4, "the rows must be in several partitions")
	r.requireWhole(t, r.await(t, 17))
	require.NoError(t, stop())

	// With another slot the relay loads, and the load reads the root, too.
	loads := &rig{db: r.db, kinesis: r.kinesis, aws: r.aws, url: r.url, slot: r.slot + "_second", log: labtest.NewLog(t)}
	loads.start(t)
	loads.eventually(t, "the load", func() bool {
		loaded := 0
		for _, record := range loads.arrived(t) {
			if record.Operation == outbox.OperationLoad {
				loaded++
			}
		}
		return loaded == 17
	})
	loads.requireWhole(t, loads.read)
}

// The relay's session goes on while the table becomes a partition under it, and writers go on, too.
func TestARunningRelayPassesThePartitioning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ended := r.run(t)
	r.streaming(t)
	var done atomic.Bool
	written := make(chan int)
	for writer := range 2 {
		go func() {
			version := 0
			for !done.Load() {
				if _, err := r.db.Pool.Exec(t.Context(), appendSQL, fmt.Sprintf("car-%d", writer), version+1, 0); err != nil {
					t.Errorf("writing version %d: %v", version+1, err)
					break
				}
				version++
			}
			written <- version
		}()
	}
	r.partition(t)
	r.appendAt(t, "next", 1, 5) // into another partition
	done.Store(true)
	total := 1 + <-written + <-written
	r.requireWhole(t, r.await(t, total))
	r.passes(t)
	require.NotContains(t, r.logged(), "session ended")

	// The comment is still there after a later change, which may have hidden inserts.
	r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'insert')")
	require.Contains(t, r.setupError(t, ended).Remedy, "pg_drop_replication_slot")
}

// passes waits until the relay has confirmed what is committed now.
func (r *rig) passes(t *testing.T) {
	t.Helper()
	var now string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&now))
	r.exec(t, "SELECT pg_logical_emit_message(true, 'test', '')")
	r.eventually(t, "the slot to pass "+now, func() (passed bool) {
		require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1",
			r.slot, now).Scan(&passed))
		return passed
	})
}

// A version that a broken writer has used in two partitions is two events. A load pages by 64 rows, and one page ends between the two.
func TestALoadHasBothEventsOfAVersionThatWasUsedTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	for version := 1; version <= 64; version++ {
		r.appendAt(t, "twice", version, 0)
	}
	r.appendAt(t, "twice", 64, 4)
	r.appendAt(t, "twice", 65, 4)
	r.start(t)
	r.await(t, 66)
}

// A page of a load must not cost more the more rows come after it.
func TestALoadOfPartitionsReadsTheirIndexes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(t, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		SELECT gen_random_uuid(), 'Car', 'c' || n, 1, 'CarCreated', '{}' FROM generate_series(1, 20000) AS n`)
	r.partition(t)
	r.exec(t, "ANALYZE outbox")
	conn, err := pgx.Connect(t.Context(), r.db.URL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	require.NoError(t, dbgen.New(conn).LoadSession(t.Context(), "60000"))
	rows, err := conn.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) "+dbgen.OutboxPage, "Car", "c1", 1, 64)
	require.NoError(t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Regexp(t, `Merge Append \(actual rows=6[45]`, strings.Join(plan, "\n"))
	require.Regexp(t, `using outbox_pkey on outbox_until_\S* \S* \(actual rows=6[45]`, strings.Join(plan, "\n"))
}

// A partition that is long over still takes the rows of a transaction that began on its day.
func TestAPartitionIsDroppedOnlyOnceTheSlotHasConfirmedItsRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	require.NoError(t, stop())
	r.partition(t)
	old := r.age(t, 15)
	r.appendAt(t, "unread", 1, -20)

	dropped, err := r.tend(t, 300*time.Millisecond)
	require.ErrorContains(t, err, "not confirmed within 300ms")
	require.Empty(t, dropped)

	long, err := r.db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = long.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = long.Exec(t.Context(), appendSQL, "late", 1, -20)
	require.NoError(t, err)
	// The call waits for the lock, not for the slot, which has not confirmed anything either. A
	// position that is noted before the commit would prove nothing.
	_, err = r.tend(t, 300*time.Millisecond)
	require.ErrorContains(t, err, "a transaction has kept a lock on table outbox")
	require.NoError(t, long.Commit(t.Context()))

	stop = r.start(t)
	dropped, err = r.tend(t, labtest.Patience)
	require.NoError(t, err)
	require.Equal(t, []string{old}, dropped)
	require.Equal(t, 2, r.distinct(t), "what is dropped is on the stream")
	r.appendAt(t, "after", 1, 0)
	r.await(t, 3)
	dropped, err = r.tend(t, labtest.Patience)
	require.NoError(t, err)
	require.Empty(t, dropped)
	require.NoError(t, stop())
}

// Through the partitions the changes would carry names that no reader knows.
func TestAPartitionedOutboxWithoutItsRootIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.partition(t)
	r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish_via_partition_root = false)")
	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	require.Contains(t, setup.Problem, "partitioned")
	require.Contains(t, setup.Remedy, "publish_via_partition_root = true")
}
