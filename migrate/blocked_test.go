package migrate_test

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
	migrations "rds-outbox-demo/sql/migrations"
)

// Each file runs while clients of the API write. Nobody waits for it longer than for locks and a handful of catalog rows, whatever the
// table's size is. A stopwatch would measure the machine, so blocked looks for the cause: a table that is read while its writers are
// locked out.
func TestNoMigrationKeepsWritersWaitingForItsRows(t *testing.T) {
	t.Parallel()
	conn := emptyDatabase(t)
	pool, err := pgxpool.NewWithConfig(t.Context(), poolConfig(t, conn))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	cars := newAPI(t, pool)
	names, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	files := fstest.MapFS{}
	var found []string
	var stop func() (requests int64, longest time.Duration)
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		require.NoError(t, err)
		files[name] = &fstest.MapFile{Data: text}
		for _, finding := range blocked(t, conn, string(text)) {
			found = append(found, name+": "+finding)
		}
		_, err = migrate.Up(t.Context(), conn, migrate.Options{Files: files})
		require.NoError(t, err)
		if name == "00002_outbox.sql" { // from here on the API can write
			query(t, conn, `INSERT INTO cars (id, make, model, year) SELECT gen_random_uuid(), 'VW', 'Golf', 2020 FROM generate_series(1, 5000)`)
			query(t, conn, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
				SELECT gen_random_uuid(), 'Car', id, 1, 'CarCreated', '{}' FROM cars`)
			stop = load(t, cars)
		}
	}
	requests, longest := stop()
	t.Logf("%d requests beside the migrations, the longest took %s", requests, longest)
	// The file's header says how to build the index beforehand. It has run somewhere, so it is never edited.
	require.Equal(t, []string{"00004_outbox_retention.sql: reads the rows of outbox and holds ShareLock on it"}, found)
}

func TestAMigrationThatKeepsWritersWaitingIsFound(t *testing.T) {
	t.Parallel()
	conn := emptyDatabase(t)
	_, err := migrate.Up(t.Context(), conn, migrate.Options{})
	require.NoError(t, err)
	query(t, conn, "INSERT INTO cars (id, make, model, year) VALUES (gen_random_uuid(), 'VW', 'Golf', 2020)")
	for up, finding := range map[string]string{
		"ALTER TABLE cars ALTER COLUMN year TYPE bigint":                                                                        "reads the rows of cars and holds AccessExclusiveLock on it",
		"ALTER TABLE cars ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()":                                             "reads the rows of cars and holds AccessExclusiveLock on it",
		"ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0)":                                                                    "reads the rows of cars and holds AccessExclusiveLock on it",
		"ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0) NOT VALID; ALTER TABLE cars VALIDATE CONSTRAINT c":                  "reads the rows of cars and holds AccessExclusiveLock on it",
		"UPDATE cars SET color = 'red'; LOCK TABLE cars IN EXCLUSIVE MODE":                                                      "reads the rows of cars and holds ExclusiveLock on it",
		"CREATE INDEX i ON cars (make)":                                                                                         "reads the rows of cars and holds ShareLock on it",
		"ALTER TABLE cars ADD COLUMN note text, ADD COLUMN n integer NOT NULL DEFAULT 0":                                        "",
		"ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0) NOT VALID":                                                          "",
		"ALTER TABLE cars RENAME COLUMN color TO colour; CREATE TABLE t (n integer); CREATE INDEX i ON t (n)":                   "",
		"ALTER TABLE outbox VALIDATE CONSTRAINT outbox_event_type_check; ALTER PUBLICATION outbox_publication SET TABLE outbox": "",
	} {
		var want []string
		if finding != "" {
			want = []string{finding}
		}
		require.Equal(t, want, blocked(t, conn, up), up)
	}
}

// blocked runs the Up of a file in a transaction, which it rolls back, and returns the tables that were there before, whose rows it read,
// and whose writers it locks out at the end. A file that first reads and then locks is found, too. A NO TRANSACTION file holds no
// lock from one statement to the next, and lint_test.go says what it may hold.
func blocked(t *testing.T, config *pgx.ConnConfig, file string) (findings []string) {
	t.Helper()
	if strings.Contains(file, "-- +goose NO TRANSACTION") {
		return nil
	}
	up, _, _ := strings.Cut(file, "-- +goose Down")
	conn := connect(t, config)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	before, err := tx.Query(t.Context(), "SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace")
	require.NoError(t, err)
	tables, err := pgx.CollectRows(before, pgx.RowTo[uint32])
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), up, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err, up)
	rows, err := tx.Query(t.Context(), `SELECT format('reads the rows of %s and holds %s on it', relname, mode)
		FROM pg_stat_xact_all_tables JOIN pg_locks ON relation = relid
		WHERE pid = pg_backend_pid() AND relid = ANY ($1) AND seq_scan > 0
			AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
		ORDER BY relname, mode`, tables)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	first := map[string]string{} // one of several locks on a table is enough
	for _, finding := range all {
		table, _, _ := strings.Cut(finding, " and holds ")
		if first[table] == "" {
			first[table] = finding
		}
	}
	for _, table := range slices.Sorted(maps.Keys(first)) {
		findings = append(findings, first[table])
	}
	return findings
}

// load lets clients write through the API until stop. Each has a car that it changes, and makes others.
func load(t *testing.T, cars api) (stop func() (requests int64, longest time.Duration)) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	var done atomic.Bool
	var made, longest atomic.Int64
	for range 2 {
		group.Go(func() error {
			for !done.Load() {
				began := time.Now()
				id, err := cars.create(ctx)
				if err == nil {
					err = cars.change(ctx, id)
				}
				if err != nil {
					return err
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
				made.Add(2)
			}
			return nil
		})
	}
	labtest.Eventually(t, "the first requests", func() bool { return made.Load() > 0 || ctx.Err() != nil })
	return func() (int64, time.Duration) {
		atEnd := made.Load()
		labtest.Eventually(t, "requests after the last migration", func() bool { return made.Load() > atEnd+4 || ctx.Err() != nil })
		done.Store(true)
		require.NoError(t, group.Wait())
		return made.Load(), time.Duration(longest.Load())
	}
}

func poolConfig(t *testing.T, conn *pgx.ConnConfig) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig(conn.ConnString())
	require.NoError(t, err)
	config.ConnConfig = conn.Copy()
	return config
}
