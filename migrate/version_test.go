package migrate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/migrate"
)

// No server of an unsupported version is at hand. This database says that it is of one.
func TestAServerThatIsTooOldIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.NewEmpty(t)
	pgtest.PretendVersion(t, url, "130023")
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	_, err = migrate.Up(t.Context(), config, migrate.Options{})
	require.EqualError(t, err, "PostgreSQL 13 is not supported: walrelay needs 14 or later: upgrade the server")
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	var tables int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables))
	require.NoError(t, conn.Close(t.Context()))
	require.Zero(t, tables)
}
