package migrate_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
	migrations "rds-outbox-demo/sql/migrations"
)

func TestUp(t *testing.T) {
	t.Parallel()

	t.Run("SecondTimeDoesNothing", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		first, err := migrate.Up(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		files, err := fs.Glob(migrations.FS, "*.sql")
		require.NoError(t, err)
		require.Equal(t, files, names(first.Ran))
		require.EqualValues(t, len(files), first.Version)
		for _, m := range first.Ran {
			require.Positive(t, m.Duration)
		}

		second, err := migrate.Up(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, migrate.Result{Version: first.Version}, second)
	})

	t.Run("SeveralAtOnceApplyEachFileOnce", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		slow := fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\nSELECT pg_sleep(0.3);\n")},
			"00002_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE b (n int);\n")},
		}
		results := make([]migrate.Result, 4)
		group, ctx := errgroup.WithContext(t.Context())
		for i := range results {
			group.Go(func() (err error) {
				results[i], err = migrate.Up(ctx, conn, migrate.Options{Files: slow})
				return err
			})
		}
		require.NoError(t, group.Wait())
		var all []string
		for _, result := range results {
			all = append(all, names(result.Ran)...)
			require.EqualValues(t, 2, result.Version)
		}
		require.Equal(t, []string{"00001_a.sql", "00002_b.sql"}, all)
	})

	t.Run("LeavesANewerDatabaseAlone", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		newer := fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\n-- +goose Down\nDROP TABLE a;\n")},
			"00002_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE b (n int);\n-- +goose Down\nDROP TABLE b;\n")},
		}
		_, err := migrate.Up(t.Context(), conn, migrate.Options{Files: newer})
		require.NoError(t, err)
		older := migrate.Options{Files: fstest.MapFS{"00001_a.sql": newer["00001_a.sql"]}}
		result, err := migrate.Up(t.Context(), conn, older)
		require.NoError(t, err)
		require.Equal(t, migrate.Result{Version: 2}, result)
		files, version, err := migrate.Status(t.Context(), conn, older)
		require.NoError(t, err)
		require.EqualValues(t, 2, version)
		require.Len(t, files, 1)

		_, err = migrate.DownTo(t.Context(), conn, 0, older)
		require.ErrorContains(t, err, "newer than these files")
	})

	t.Run("FailureNamesFileStatementAndWhatCameBefore", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		broken := fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\n")},
			"00002_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE b (n int);\nALTER TABLE nowhere ADD c int;\nCREATE TABLE d (n int);\n")},
			"00003_c.sql": {Data: []byte("-- +goose Up\nCREATE TABLE c (n int);\n")},
		}
		_, err := migrate.Up(t.Context(), conn, migrate.Options{Files: broken})
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "00002_b.sql", failed.File)
		require.Equal(t, "up", failed.Direction)
		require.Equal(t, "ALTER TABLE nowhere ADD c int;", failed.Statement)
		require.Equal(t, []string{"00001_a.sql"}, names(failed.Before))
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, `migrating up with 00002_b.sql: ERROR: relation "nowhere" does not exist (SQLSTATE 42P01)
statement: ALTER TABLE nowhere ADD c int;
done before it: 00001_a.sql`, err.Error())
		require.Equal(t, "a goose_db_version", query(t, conn, `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
			WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`), "00002 is rolled back")
	})

	// A deferred constraint fails when its transaction commits, long after its statement.
	t.Run("FailureOfTheCommit", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.Up(t.Context(), emptyDatabase(t), migrate.Options{Files: fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO a VALUES (1), (1);\nSELECT 1;\n")},
		}})
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "commit", failed.Statement)
		require.ErrorContains(t, err, "detail: Key (n)=(1) already exists.")
	})

	t.Run("UnreachableNamesTheAddressAndNoPassword", func(t *testing.T) {
		t.Parallel()
		conn, err := pgx.ParseConfig("postgres://dbadmin:very-secret@127.0.0.1:1/cars?sslmode=disable")
		require.NoError(t, err)
		_, err = migrate.Up(t.Context(), conn, migrate.Options{})
		require.ErrorContains(t, err, "connecting to database cars at 127.0.0.1:1")
		require.NotContains(t, err.Error(), "very-secret")
	})
}

func TestLock(t *testing.T) {
	t.Parallel()

	t.Run("HeldByAnotherMigration", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		holder := connect(t, conn)
		_, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
		require.NoError(t, err)

		_, err = migrate.Up(t.Context(), conn, migrate.Options{LockWait: time.Second})
		var locked *migrate.LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, int(holder.PgConn().PID()), locked.PID)
		require.GreaterOrEqual(t, locked.Waited, time.Second)
		require.Regexp(t, `waited \d+s`, err.Error())
		require.ErrorContains(t, err, "SELECT pg_terminate_backend(")

		files, version, err := migrate.Status(t.Context(), conn, migrate.Options{})
		require.NoError(t, err, "reading needs no lock")
		require.Zero(t, version)
		require.NotEmpty(t, files)
		for _, f := range files {
			require.Zero(t, f.AppliedAt)
		}
	})

	t.Run("WaitsForTheOther", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		holder := connect(t, conn)
		_, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := migrate.Up(t.Context(), conn, migrate.Options{LockWait: time.Hour})
			done <- err
		}()
		awaitWaiting(t, conn)
		require.NoError(t, holder.Close(t.Context()))
		require.NoError(t, <-done)
	})

	t.Run("EndOfTheContextEndsTheWait", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		holder := connect(t, conn)
		_, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := migrate.Up(ctx, conn, migrate.Options{LockWait: time.Hour})
			done <- err
		}()
		awaitWaiting(t, conn) // if ctx ended earlier, it would end the connecting
		cancel()
		err = <-done
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "waiting for the migration lock")
	})

	t.Run("WaitTooShortIsRefused", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.Up(t.Context(), emptyDatabase(t), migrate.Options{LockWait: time.Millisecond})
		require.ErrorContains(t, err, "Options.LockWait is 1ms")
	})
}

// awaitWaiting waits until a migration has asked for the lock and not got it.
func awaitWaiting(t *testing.T, conn *pgx.ConnConfig) {
	t.Helper()
	labtest.Eventually(t, "a migration that waits for the lock", func() bool {
		return query(t, conn, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'migrate' AND datname = current_database() AND query LIKE '%try_advisory%'") == "1"
	})
}

// emptyDatabase makes a database without tables that goes with the test.
func emptyDatabase(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	conn, err := pgx.ParseConfig(pgtest.NewEmpty(t))
	require.NoError(t, err)
	return conn
}

func connect(t *testing.T, conn *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	session, err := pgx.ConnectConfig(t.Context(), conn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close(context.WithoutCancel(t.Context())) })
	return session
}

// query runs one statement and returns its first value, which must be text. It returns "" without a row.
func query(t *testing.T, conn *pgx.ConnConfig, sql string) string {
	t.Helper()
	session, err := pgx.ConnectConfig(t.Context(), conn)
	require.NoError(t, err)
	defer func() { _ = session.Close(t.Context()) }()
	rows, err := session.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	value, err := pgx.CollectOneRow(rows, pgx.RowTo[*string])
	if errors.Is(err, pgx.ErrNoRows) {
		return ""
	}
	require.NoError(t, err)
	if value == nil {
		return ""
	}
	return *value
}

func names(ran []migrate.Migration) []string {
	var all []string
	for _, m := range ran {
		all = append(all, m.File)
	}
	return all
}

// schema describes everything the migrations make. That is columns, constraints, indexes, comments,
// grants and publications.
func schema(t *testing.T, conn *pgx.ConnConfig) string {
	t.Helper()
	return query(t, conn, `
		WITH tables AS (
			SELECT oid, relname, relreplident, relacl, relowner FROM pg_class
			WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'goose_db_version'
		), facts AS (
			SELECT format('table %s %s %s', relname, relreplident, obj_description(oid)) AS fact FROM tables
			UNION ALL
			SELECT format('column %s.%s %s %s %s %s', relname, attname, format_type(atttypid, atttypmod), attnotnull,
				pg_get_expr(adbin, adrelid), col_description(tables.oid, attnum))
			FROM tables JOIN pg_attribute ON attrelid = tables.oid LEFT JOIN pg_attrdef ON adrelid = tables.oid AND adnum = attnum
			WHERE attnum > 0 AND NOT attisdropped
			UNION ALL
			SELECT format('constraint %s %s', conname, pg_get_constraintdef(pg_constraint.oid)) FROM tables JOIN pg_constraint ON conrelid = tables.oid
			UNION ALL
			SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM tables JOIN pg_index ON indrelid = tables.oid
			UNION ALL
			SELECT format('grant %s %s %s', name, grantee::regrole, privilege_type)
			FROM (SELECT relname, relacl, relowner FROM tables UNION ALL SELECT nspname, nspacl, nspowner FROM pg_namespace) AS granted (name, acl, owner),
				aclexplode(acl)
			WHERE grantee <> owner
			UNION ALL
			SELECT format('grant %s.%s %s %s', relname, attname, grantee::regrole, privilege_type)
			FROM tables JOIN pg_attribute ON attrelid = tables.oid, aclexplode(attacl)
			UNION ALL
			SELECT format('publication %s %s %s %s %s %s', pubname, tablename, pubinsert, pubupdate, pubdelete, pubtruncate)
			FROM pg_publication JOIN pg_publication_tables USING (pubname)
		)
		SELECT string_agg(fact, E'\n' ORDER BY fact) FROM facts`)
}
