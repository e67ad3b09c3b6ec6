package migrate

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/plural"
)

// RowsError says which rows a migration down would delete. Nothing was changed.
type RowsError struct {
	Version int64 // that was asked for
	Lost    []Loss
}

// Loss is a table, or a column of one, that goes although the table has rows.
type Loss struct {
	Table  string
	Column string // empty when the whole table goes
	Rows   int64
}

func (e *RowsError) Error() string {
	var lost []string
	for _, l := range e.Lost {
		rows := plural.Of(l.Rows, "row")
		if l.Column != "" {
			rows = "column " + l.Column + " of " + rows
		}
		lost = append(lost, rows+" of "+l.Table)
	}
	return fmt.Sprintf("migrating down to version %d would delete %s: nothing was changed", e.Version, strings.Join(lost, ", "))
}

// DownTo takes back every migration above version. Version 0 takes back all. It first runs all of them
// in a transaction that it rolls back, because otherwise the third could fail after the first two have
// dropped their tables.
// Errors: those of Up, *RowsError unless options.DropRows is set, or that the database is newer than the files.
func DownTo(ctx context.Context, conn *pgx.ConnConfig, version int64, options Options) (Result, error) {
	if version < 0 {
		return Result{}, fmt.Errorf("migrating down to version %d: it must be 0 or more", version)
	}
	lost, err := rehearse(ctx, conn, version, options)
	if err != nil {
		return Result{}, err
	}
	if len(lost) > 0 && !options.DropRows {
		return Result{}, &RowsError{version, lost}
	}
	return run(ctx, conn, options, func(ctx context.Context, s *session) ([]*goose.MigrationResult, error) {
		return s.locked.DownTo(ctx, version)
	})
}

// rehearse returns what is lost on the way down to version. It takes the locks that the migration itself takes.
func rehearse(ctx context.Context, conn *pgx.ConnConfig, version int64, options Options) ([]Loss, error) {
	steps, err := stepsDown(ctx, conn, version, options)
	if err != nil || len(steps) == 0 {
		return nil, err
	}
	conn = conn.Copy()
	pgsession.Fix(conn, "migrate", options.Limits)
	db, err := pgx.ConnectConfig(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("connecting for the rehearsal of a migration: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	tx, err := db.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("beginning the rehearsal of a migration: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	before, err := columns(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, step := range steps {
		// goose's annotations are comments to the server, which takes several statements at once.
		if _, err := tx.Exec(ctx, step.sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return nil, &FailedError{File: step.file, Direction: "down", Err: err}
		}
	}
	after, err := columns(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err := tx.Rollback(ctx); err != nil {
		return nil, fmt.Errorf("ending the rehearsal of a migration: %w", err)
	}
	return losses(ctx, db, before, after)
}

type step struct{ file, sql string }

// stepsDown returns what DownTo will run, the newest first. It is empty for a single file that says NO TRANSACTION, which cannot run
// in a rehearsal's transaction. Before or after other files such a file is an error.
func stepsDown(ctx context.Context, conn *pgx.ConnConfig, version int64, options Options) ([]step, error) {
	files, at, err := Status(ctx, conn, options)
	if err != nil {
		return nil, err
	}
	if at > files[len(files)-1].Version {
		return nil, newerThanFiles(goose.ErrVersionNotFound)
	}
	var steps []step
	var alone *FileStatus
	for _, file := range slices.Backward(files) {
		if file.Version <= version || file.AppliedAt.IsZero() {
			continue
		}
		text, err := fs.ReadFile(options.files(), file.File)
		if err != nil {
			return nil, fmt.Errorf("reading a migration: %w", err)
		}
		if strings.Contains(string(text), "-- +goose NO TRANSACTION") {
			alone = &file
		}
		_, down, _ := strings.Cut(string(text), "-- +goose Down")
		steps = append(steps, step{file.File, down})
	}
	if alone != nil && len(steps) > 1 {
		return nil, fmt.Errorf("migrating down to version %d: %s says NO TRANSACTION, so it cannot be rehearsed with the others: "+
			"nothing was changed; take it back by itself, with down-to %d and then down-to %d", version, alone.File, alone.Version, alone.Version-1)
	}
	if alone != nil {
		return nil, nil
	}
	return steps, nil
}

// losses counts the rows of what is in before and not in after.
func losses(ctx context.Context, db *pgx.Conn, before, after map[string][]string) ([]Loss, error) {
	var lost []Loss
	for _, table := range slices.Sorted(maps.Keys(before)) {
		var gone []string
		if after[table] == nil {
			gone = []string{""}
		} else {
			gone = slices.DeleteFunc(before[table], func(column string) bool { return slices.Contains(after[table], column) })
		}
		if len(gone) == 0 {
			continue
		}
		var rows int64
		err := db.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&rows) // table is quoted where it has to be
		if err != nil {
			return nil, fmt.Errorf("counting the rows of %s: %w", table, err)
		}
		for _, column := range gone {
			if rows > 0 {
				lost = append(lost, Loss{table, column, rows})
			}
		}
	}
	return lost, nil
}

// columns returns the columns of every table that is not the server's own.
func columns(ctx context.Context, tx pgx.Tx) (map[string][]string, error) {
	rows, err := tx.Query(ctx, `
		SELECT attrelid::regclass::text, array_agg(attname::text ORDER BY attnum)
		FROM pg_attribute
		JOIN pg_class ON pg_class.oid = attrelid
		WHERE relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped AND NOT relispartition
			AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
		GROUP BY attrelid`)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	found := map[string][]string{}
	var table string
	var names []string
	_, err = pgx.ForEachRow(rows, []any{&table, &names}, func() error {
		found[table] = slices.Clone(names)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	return found, nil
}
