package migrate_test

import (
	"context"
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
)

// careless takes an INVALID index of an earlier try for the one that it should make, and its SET LOCAL does nothing.
const careless = `-- +goose NO TRANSACTION
-- +goose Up
SET LOCAL lock_timeout = 0;
CREATE INDEX CONCURRENTLY IF NOT EXISTS t_a_idx ON t (a);
-- +goose Down
DROP INDEX t_a_idx;
`

// careful is the pattern of docs/make-it-yours.md.
const careful = `-- +goose NO TRANSACTION
-- +goose Up
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS t_a_idx;
CREATE INDEX CONCURRENTLY t_a_idx ON t (a);
RESET lock_timeout;
-- +goose Down
DROP INDEX CONCURRENTLY t_a_idx;
`

// busyTable is a database whose table t somebody else's open transaction has written to.
type busyTable struct {
	conn  *pgx.ConnConfig
	other pgx.Tx
}

const lockTimeout = 50 * time.Millisecond

func newBusyTable(t *testing.T) busyTable {
	t.Helper()
	b := busyTable{conn: emptyDatabase(t)}
	require.NoError(t, b.up(t, ""))
	session, err := pgx.ConnectConfig(t.Context(), b.conn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	b.other, err = session.Begin(t.Context())
	require.NoError(t, err)
	_, err = b.other.Exec(t.Context(), "INSERT INTO t VALUES (1)")
	require.NoError(t, err)
	return b
}

// up runs the migrations with an index file, as the Lambda function does.
func (b busyTable) up(t *testing.T, index string) error {
	t.Helper()
	files := fstest.MapFS{"00001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (a int);\n-- +goose Down\nDROP TABLE t;\n")}}
	if index != "" {
		files["00002_t_a_idx.sql"] = &fstest.MapFile{Data: []byte(index)}
	}
	_, err := migrate.Up(t.Context(), b.conn, migrate.Options{Files: files, Limits: pgsession.Limits{Lock: lockTimeout}})
	return err
}

// awaitLongWait returns when a statement on an index has waited for longer than lockTimeout lets a statement wait.
func (b busyTable) awaitLongWait(t *testing.T) {
	t.Helper()
	labtest.Eventually(t, "a statement to wait for the transaction", func() bool {
		return query(t, b.conn, fmt.Sprintf(`SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database()
			AND query LIKE '%%INDEX CONCURRENTLY%%' AND wait_event_type = 'Lock' AND now() - query_start > interval '%d ms'`,
			4*lockTimeout.Milliseconds())) == "1"
	})
}

func TestUpFailsWhileAnIndexIsInvalid(t *testing.T) {
	t.Parallel()
	b := newBusyTable(t)
	var refused *pgconn.PgError
	require.ErrorAs(t, b.up(t, careless), &refused)
	require.Equal(t, "55P03", refused.Code, "lock_not_available")
	require.NoError(t, b.other.Commit(t.Context()))
	for _, when := range []string{"after IF NOT EXISTS took the index for made", "with nothing pending"} {
		var invalid *migrate.InvalidIndexError
		require.ErrorAs(t, b.up(t, careless), &invalid, when)
		require.Equal(t, []string{"public.t_a_idx"}, invalid.Indexes)
		require.ErrorContains(t, invalid, "DROP INDEX CONCURRENTLY")
	}
}

func TestAConcurrentIndexIsMadeBesideATransactionAndAfterAFailure(t *testing.T) {
	t.Parallel()
	b := newBusyTable(t)
	require.Error(t, b.up(t, careless), "leaves an INVALID index")
	done := make(chan error, 1)
	go func() { done <- b.up(t, careful) }()
	b.awaitLongWait(t) // DROP INDEX CONCURRENTLY waits, too
	require.NoError(t, b.other.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, "true", query(t, b.conn, "SELECT indisvalid::text FROM pg_index WHERE indexrelid = 't_a_idx'::regclass"))
	require.NoError(t, b.up(t, careful))
}

func TestAnIndexThatIsBeingBuiltIsNotInvalid(t *testing.T) {
	t.Parallel()
	b := newBusyTable(t)
	session, err := pgx.ConnectConfig(t.Context(), b.conn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	done := make(chan error, 1)
	go func() {
		_, err := session.Exec(t.Context(), "CREATE INDEX CONCURRENTLY t_a_idx ON t (a)")
		done <- err
	}()
	b.awaitLongWait(t)
	require.NoError(t, b.up(t, ""))
	require.NoError(t, b.other.Commit(t.Context()))
	require.NoError(t, <-done)
}
