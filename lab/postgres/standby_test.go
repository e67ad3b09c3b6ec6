package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// A standby has the primary's rows and its failover slot. After the promotion it takes writes, and can have a standby itself.
func TestStandby(t *testing.T) {
	t.Parallel()
	binaries := findBinaries(t)
	primary := mustStart(t, Config{Dir: tempDir(t), Binaries: binaries})
	query(t, primary.URL(), "INSERT INTO kept VALUES (1) RETURNING 1")
	query(t, primary.URL(), "SELECT pg_create_logical_replication_slot('s', 'pgoutput', failover => true)::text")
	for range 2 {
		standby, err := StartStandby(t.Context(), Config{Dir: tempDir(t), Binaries: binaries}, primary, "standby")
		require.NoError(t, err)
		t.Cleanup(func() { _ = standby.Kill() })
		query(t, primary.URL(), "INSERT INTO kept VALUES (2) RETURNING 1")
		labtest.Eventually(t, "the rows and the slot", func() bool {
			// The standby cannot have a position that is before its own WAL. So the slot moves, as under a relay.
			query(t, primary.URL(), "SELECT pg_log_standby_snapshot()::text")
			query(t, primary.URL(), "SELECT pg_replication_slot_advance('s', pg_current_wal_lsn())::text")
			return query(t, standby.URL(), "SELECT count(*) FROM kept") == query(t, primary.URL(), "SELECT count(*) FROM kept") &&
				query(t, standby.URL(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's' AND synced AND NOT temporary") == "1"
		})
		require.NoError(t, standby.Promote(t.Context()))
		query(t, standby.URL(), "INSERT INTO kept VALUES (3) RETURNING 1")
		require.Equal(t, "1", query(t, standby.URL(), "SELECT count(*) FROM pg_replication_slots"), "the primary's physical slot is not copied")
		primary = standby
	}
}
