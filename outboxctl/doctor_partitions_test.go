package outboxctl

import (
	"fmt"
	"testing"
	"time"

	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/migrate"
)

// Partitions run out, and a partitioning is killed. Both end in inserts that fail days later.
func TestDoctorOfPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec := func(statement string, args ...any) {
		t.Helper()
		_, err := db.Pool.Exec(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	says := func(want state, finding string) {
		t.Helper()
		conn, err := db.Pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
		found, err := partitions(t.Context(), conn.Conn())
		require.NoError(t, err)
		require.Equal(t, want, found.State, found)
		require.Regexp(t, finding, found.Finding)
		require.Equal(t, want == stateOK, found.Do == "", found)
	}
	says(stateOK, "^outbox has none$")

	exec("ALTER TABLE outbox ADD CONSTRAINT outbox_partition_check CHECK (created_at < '2100-01-01') NOT VALID")
	says(stateFail, "was killed, and its CHECK .*2100-01-01.* will refuse later inserts")
	migrating, err := db.Pool.Acquire(t.Context())
	require.NoError(t, err)
	_, err = migrating.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
	require.NoError(t, err)
	says(stateWarn, "^outbox is being partitioned$")
	require.NoError(t, migrating.Hijack().Close(t.Context()))
	config := db.Pool.Config().ConnConfig
	_, err = migrate.Up(t.Context(), config, migrate.Options{}) // the remedy
	require.NoError(t, err)
	says(stateOK, "^outbox has none$")

	_, err = migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{})
	require.NoError(t, err)
	says(stateOK, "^until 2[0-9-]+ 00:00:00 UTC, [67] partitions ahead$")
	exec("ALTER FUNCTION outbox_partitions_attach() RENAME TO gone")
	says(stateFail, "partitions ahead, but the functions that attach the next ones are missing$")
	_, err = migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{}) // the remedy
	require.NoError(t, err)
	drop := `DO $$ DECLARE part regclass; BEGIN
		FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'outbox'::regclass ORDER BY inhrelid DESC LIMIT %s LOOP
			EXECUTE format('DROP TABLE %%s', part);
		END LOOP; END $$`
	exec(fmt.Sprintf(drop, "4"))
	says(stateWarn, "[23] partitions ahead, which is few")
	exec(fmt.Sprintf(drop, "ALL"))
	says(stateFail, "^no partition for rows of now: every insert fails$")
	for _, bounds := range []string{"DEFAULT", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)", "FOR VALUES FROM ('2026-01-01') TO ('infinity')"} {
		exec("CREATE TABLE outbox_rest PARTITION OF outbox " + bounds)
		says(stateWarn, "^outbox_rest has no upper bound: retention never drops it")
		exec("DROP TABLE outbox_rest")
	}
}
