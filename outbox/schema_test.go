package outbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

// A caller's session is its own. Whatever its search_path finds first, an event goes into the table
// that is published.
func TestAppendWritesIntoThePublishedTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn, err := db.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for _, sql := range []string{
		"CREATE SCHEMA other", "CREATE TABLE other.outbox (LIKE public.outbox INCLUDING ALL)", "CREATE TEMP TABLE outbox (LIKE public.outbox INCLUDING ALL)", "SET search_path = other",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	first, second := event(nil), event(nil)
	require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return outbox.Append(t.Context(), tx, first) }))
	var batch outbox.Batch
	require.NoError(t, outbox.Append(t.Context(), &batch, second))
	require.NoError(t, batch.Send(t.Context(), conn))
	for table, want := range map[string]int{"public.outbox": 2, "other.outbox": 0, "pg_temp.outbox": 0} {
		var rows int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows))
		require.Equal(t, want, rows, table)
	}
}
