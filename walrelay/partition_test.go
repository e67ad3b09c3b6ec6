package walrelay_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// partition runs the documented script.
func (r *rig) partition(t *testing.T) {
	t.Helper()
	script, err := os.ReadFile("../docs/scaling/partitions.sql")
	require.NoError(t, err)
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), string(script))
		return err
	}))
}

// appendAt writes one event as if its transaction had begun some days from now.
func (r *rig) appendAt(t *testing.T, aggregateID string, version, days int) {
	t.Helper()
	r.exec(t, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		VALUES (gen_random_uuid(), 'Car', $1, $2, 'CarUpdated', '{}', now() + make_interval(days => $3))`, aggregateID, version, days)
}

// tend is the hourly call. It returns the partition that it dropped, or "".
func (r *rig) tend(ctx context.Context, patience string) (dropped string, err error) {
	err = r.db.Pool.QueryRow(ctx, "SELECT coalesce(outbox_partitions($1, patience => $2::text::interval), '')", r.slot, patience).Scan(&dropped)
	return dropped, err
}

// mustTend waits for the slot and drops nothing.
func (r *rig) mustTend(t *testing.T) {
	t.Helper()
	dropped, err := r.tend(t.Context(), labtest.Patience.String())
	require.NoError(t, err)
	require.Empty(t, dropped)
}

// age makes the partition that the table became one whose last day ended so many days ago, and returns its new name.
func (r *rig) age(t *testing.T, days int) string {
	t.Helper()
	const name = "outbox_aged"
	r.exec(t, fmt.Sprintf(`DO $$
		DECLARE
			first regclass := min(inhrelid)::regclass FROM pg_inherits WHERE inhparent = 'outbox'::regclass;
		BEGIN
			EXECUTE format('ALTER TABLE outbox DETACH PARTITION %%s', first);
			EXECUTE format('ALTER TABLE %%s RENAME TO %[1]s', first);
			EXECUTE format('ALTER TABLE outbox ATTACH PARTITION %[1]s FOR VALUES FROM (MINVALUE) TO (%%L)', date_trunc('day', now() - interval '%[2]d days'));
		END $$`, name, days))
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
	r.mustTend(t)
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

// A partition that is long over still takes the rows of a transaction that began on its day.
func TestAPartitionIsDroppedOnlyOnceTheSlotHasConfirmedItsRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	require.NoError(t, stop())
	r.partition(t)
	r.mustTend(t)
	old := r.age(t, 15)
	r.appendAt(t, "unread", 1, -20)

	_, err := r.tend(t.Context(), "300ms")
	require.ErrorContains(t, err, "has not confirmed")
	require.ErrorContains(t, err, old+" stays")

	long, err := r.db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = long.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = long.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		VALUES (gen_random_uuid(), 'Car', 'late', 1, 'CarUpdated', '{}', now() - interval '20 days')`)
	require.NoError(t, err)
	// The call waits for the lock, not for the slot, which has not confirmed anything either. A
	// position that is noted before the commit would prove nothing.
	_, err = r.tend(t.Context(), "300ms")
	require.ErrorContains(t, err, "lock timeout")
	require.NoError(t, long.Commit(t.Context()))

	stop = r.start(t)
	dropped, err := r.tend(t.Context(), labtest.Patience.String())
	require.NoError(t, err)
	require.Equal(t, old, dropped)
	require.Equal(t, 2, r.distinct(t), "what is dropped is on the stream")
	r.appendAt(t, "after", 1, 0)
	r.await(t, 3)
	r.mustTend(t)
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
