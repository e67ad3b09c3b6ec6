package migrate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/migrate"
)

func TestADatabaseThatIsNotUTF8IsRefused(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			config, err := pgx.ParseConfig(pgtest.NewWithEncoding(t, encoding))
			require.NoError(t, err)
			_, err = migrate.Up(t.Context(), config, migrate.Options{})
			require.EqualError(t, err, "database "+config.Database+": the database's encoding is "+encoding+": events are UTF-8, so it must be UTF8: "+
				"make a database WITH ENCODING 'UTF8' TEMPLATE template0, move the data there, and use that one")
			_, _, err = migrate.Status(t.Context(), config, migrate.Options{})
			require.ErrorContains(t, err, "encoding is "+encoding)
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			var tables int
			require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables))
			require.NoError(t, conn.Close(t.Context()))
			require.Zero(t, tables)
		})
	}
}
