// Package postgrestest starts PostgreSQL servers for tests that concern a whole server.
package postgrestest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/migrate"
)

// EnvBinaries names the folder of the binaries that the test server runs from. `lab with-postgres -throwaway` sets it, so that a
// test's own server has the version of the one that it stands beside.
const EnvBinaries = "TEST_POSTGRES"

// FindBinaries returns the folder in EnvBinaries. Without it, as with a test server of your own, it is the one that
// postgres.FindBinaries finds under root.
func FindBinaries(root string) (string, error) {
	if binaries := os.Getenv(EnvBinaries); binaries != "" {
		return binaries, nil
	}
	return postgres.FindBinaries(root)
}

// Start starts a server that the end of the test kills. The configuration is for starting it again.
func Start(t testing.TB, settings map[string]string) (*postgres.Server, postgres.Config) {
	t.Helper()
	binaries, err := FindBinaries(labtest.Root(t))
	if err != nil {
		labtest.Missing(t, err)
	}
	config := postgres.Config{Dir: t.TempDir(), Binaries: binaries, Settings: settings}
	require.NoError(t, os.Chmod(filepath.Dir(config.Dir), 0o755)) //nolint:gosec // as root the server runs as another user
	server, err := postgres.Start(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Kill() })
	return server, config
}

// Migrate runs the migrations on the server's database. The pool is of a superuser.
func Migrate(t testing.TB, server *postgres.Server) *pgtest.DB {
	t.Helper()
	database, err := pgx.ParseConfig(server.URL())
	require.NoError(t, err)
	// The first connection has 10 s, so that a wrong address is an error soon. This address is right, and a server that has just been
	// started on a busy machine may need longer.
	labtest.Eventually(t, "the server to let the migrations in", func() bool {
		_, err = migrate.Up(t.Context(), database, migrate.Options{})
		return !errors.Is(err, context.DeadlineExceeded)
	})
	require.NoError(t, err)
	pool, err := pgxpool.New(t.Context(), server.URL())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return &pgtest.DB{URL: server.URL(), Pool: pool}
}
