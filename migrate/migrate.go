// Package migrate brings a database to the schema of sql/migrations, or back.
//
// In: how to connect, and a direction.
// Out: which files ran and the version that the database is at now.
// A lock in the database keeps two migrations apart, wherever they run. The command line, the Lambda
// function and the tests use the same library.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"rds-outbox-demo/internal/pgserver"
	"rds-outbox-demo/internal/pgsession"
	migrations "rds-outbox-demo/sql/migrations"
)

// connectTimeout bounds the first connection, so that a wrong address is an error soon.
const connectTimeout = 10 * time.Second

// Options may stay empty.
type Options struct {
	// LockWait is how long to wait for another migration of the same database to finish, in whole seconds.
	// 0 means one minute. A Lambda function needs less than its own timeout.
	LockWait time.Duration
	// Limits of the migrations' statements. Zero means no limit, so a migration may take as long as it
	// needs.
	Limits pgsession.Limits
	// DropRows lets DownTo delete rows.
	DropRows bool
	// Files replaces the migrations of this project. Tests do that.
	Files fs.FS
}

func (o Options) files() fs.FS {
	if o.Files == nil {
		return migrations.FS
	}
	return o.Files
}

// Migration is one file that ran.
type Migration struct {
	Version  int64
	File     string
	Duration time.Duration
}

// Result says what a run did and where it left the database. Nothing to do is a result, too.
type Result struct {
	Ran     []Migration // in the order they ran
	Version int64       // of the database afterwards; 0 is an empty one
}

// FileStatus is one file and when it was applied. The zero time means that it is pending.
type FileStatus struct {
	Version   int64
	File      string
	AppliedAt time.Time
}

// Up applies the pending files. It leaves a database that is newer than the files as it is, because the
// old program must not fail when a deployment is rolled back. conn comes from pgx.ParseConfig.
// Errors: *LockedError, *FailedError, *InvalidIndexError after everything was applied, or that the database cannot be reached.
func Up(ctx context.Context, conn *pgx.ConnConfig, options Options) (Result, error) {
	return run(ctx, conn, options, func(ctx context.Context, s *session) ([]*goose.MigrationResult, error) {
		ran, err := s.locked.Up(ctx)
		if err != nil {
			return nil, err
		}
		return ran, checkIndexes(ctx, s.db)
	})
}

// Status lists every file and returns the version that the database is at. It does not wait for a migration that is running.
func Status(ctx context.Context, conn *pgx.ConnConfig, options Options) ([]FileStatus, int64, error) {
	s, err := open(ctx, conn, options)
	if err != nil {
		return nil, 0, err
	}
	defer s.close()
	found, err := s.unlocked.Status(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the migration status: %w", err)
	}
	version, err := s.unlocked.GetDBVersion(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the database's version: %w", err)
	}
	files := make([]FileStatus, 0, len(found))
	for _, f := range found {
		files = append(files, FileStatus{Version: f.Source.Version, File: path.Base(f.Source.Path), AppliedAt: f.AppliedAt})
	}
	return files, version, nil
}

func run(ctx context.Context, conn *pgx.ConnConfig, options Options, do func(context.Context, *session) ([]*goose.MigrationResult, error)) (Result, error) {
	s, err := open(ctx, conn, options)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	// It is not done where goose takes the lock, because with nothing pending goose takes none.
	if err := s.tidy(ctx); err != nil {
		return Result{}, err
	}
	ran, err := do(ctx, s)
	if err != nil {
		return Result{}, s.explain(err)
	}
	version, err := s.unlocked.GetDBVersion(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("reading the database's version: %w", err)
	}
	return Result{Ran: results(ran), Version: version}, nil
}

func results(ran []*goose.MigrationResult) []Migration {
	var all []Migration
	for _, r := range ran {
		all = append(all, Migration{Version: r.Source.Version, File: path.Base(r.Source.Path), Duration: r.Duration})
	}
	return all
}

// session is one use of a database. There are two providers because goose takes the lock for reading, too, and a goose locker
// counts its tries over all its uses.
type session struct {
	db               *sql.DB
	locked, unlocked *goose.Provider
	failures         *failures
}

func open(ctx context.Context, conn *pgx.ConnConfig, options Options) (*session, error) {
	files := options.files()
	locker, err := newLocker(options.LockWait)
	if err != nil {
		return nil, err
	}
	conn = conn.Copy()
	failed := &failures{}
	conn.Tracer = failed
	pgsession.Fix(conn, "migrate", options.Limits) // the name is what LockedError shows to the next one
	// Open connections have no limit, because goose holds one for the lock and would wait for itself.
	db := stdlib.OpenDB(*conn)
	s := &session{db: db, failures: failed}
	s.locked, err = goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err == nil {
		s.unlocked, err = goose.NewProvider(goose.DialectPostgres, db, files)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("reading the migration files: %w", err)
	}
	if err := s.reach(ctx, conn); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// reach connects, and refuses a server that is too old and a database that cannot hold events.
func (s *session) reach(ctx context.Context, config *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		address := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
		return fmt.Errorf("connecting to database %s at %s: %w", config.Database, address, err)
	}
	defer func() { _ = conn.Close() }()
	var version string
	err = conn.QueryRowContext(ctx, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'server_version_num'").Scan(&version)
	if err != nil {
		return fmt.Errorf("reading server_version_num: %w", err)
	}
	if err := pgserver.CheckVersion(version); err != nil {
		return fmt.Errorf("%w: %s", err, pgserver.VersionRemedy)
	}
	return conn.Raw(func(driver any) error {
		if err := pgserver.CheckEncoding(driver.(*stdlib.Conn).Conn().PgConn()); err != nil {
			return fmt.Errorf("database %s: %w: %s", config.Database, err, pgserver.EncodingRemedy)
		}
		return nil
	})
}

// tidy removes what a killed Partition left.
func (s *session) tidy(ctx context.Context) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return conn.Raw(func(driver any) error { return removeLeftovers(ctx, driver.(*stdlib.Conn).Conn()) })
}

func (s *session) close() { _ = s.db.Close() }

// explain turns goose's error into one that an operator can act on.
func (s *session) explain(err error) error {
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		return &FailedError{
			File:      path.Base(partial.Failed.Source.Path),
			Direction: partial.Failed.Direction,
			Statement: s.failures.statement(partial.Err),
			Before:    results(partial.Applied),
			Err:       partial.Err,
		}
	}
	if errors.Is(err, goose.ErrVersionNotFound) {
		return newerThanFiles(err)
	}
	var locked *LockedError
	if errors.As(err, &locked) {
		return locked
	}
	return fmt.Errorf("migrating: %w", err)
}

func newerThanFiles(err error) error {
	return fmt.Errorf("the database is newer than these files, which cannot take it back: use the release that brought it there: %w", err)
}
