package retention_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// The rights on the table and its partitions are those that retention had before.
func TestAPartitionedOutboxIsPurged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	script, err := os.ReadFile("../../docs/scaling/partitions.sql")
	require.NoError(t, err)
	r.rows(t, "older", 3, 15)
	r.exec(t, string(script))
	r.exec(t, "SELECT outbox_partitions($1, keep => '100 years')", r.slot)
	r.rows(t, "newer", 3, -2)
	r.rows(t, "due", 3, 20)
	require.Equal(t, "2", r.ask(t, "SELECT count(DISTINCT tableoid)::text FROM outbox"))
	arrived := r.relay(t)
	labtest.Eventually(t, "the events", func() bool {
		events := arrived()
		return events["insert of older"] == 3 && events["insert of newer"] == 3 && events["insert of due"] == 3
	})
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 6, result.Deleted)
	require.Equal(t, "3", r.ask(t, "SELECT count(*)::text FROM outbox"))
}
