package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3/lock"
)

const defaultLockWait = time.Minute

// LockedError says that another migration of this database did not finish while we waited. Nothing was changed.
type LockedError struct {
	Waited time.Duration
	// Holder describes the session with the lock, as far as the database lets us see it.
	Holder string
	// PID is its server process; 0 when it has just ended.
	PID int
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another migration held the lock for all of %s and has just finished: try again", e.Waited)
	}
	return fmt.Sprintf("another migration holds the lock: %s; waited %s. Let it finish and try again; if nobody runs it any more, "+
		"end its session with SELECT pg_terminate_backend(%d)", e.Holder, e.Waited, e.PID)
}

// namingLocker is goose's advisory lock, which says who has it. goose tries once a second instead of queueing in the database:
// a waiting session would keep a snapshot, and CREATE INDEX CONCURRENTLY of the session with the lock would wait for it for ever.
type namingLocker struct{ lock.SessionLocker }

func newLocker(wait time.Duration) (namingLocker, error) {
	if wait == 0 {
		wait = defaultLockWait
	}
	if wait < time.Second {
		return namingLocker{}, fmt.Errorf("Options.LockWait is %s: it must be at least 1s", wait)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, uint64(wait/time.Second)))
	return namingLocker{locker}, err
}

func (l namingLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	began := time.Now()
	err := l.SessionLocker.SessionLock(ctx, conn)
	if err == nil {
		return nil
	}
	var refused *pgconn.PgError
	if ctx.Err() != nil || errors.As(err, &refused) {
		return fmt.Errorf("waiting for the migration lock: %w", err)
	}
	locked := &LockedError{Waited: time.Since(began).Round(time.Second)}
	const holder = `
		SELECT pid, format('process %s, application %s, user %s, from %s, since %s', pid, application_name, usename,
			coalesce(host(client_addr), 'the same machine'), to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
		FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pg_locks.database = datid AND datname = current_database()
			AND (classid::bigint << 32 | objid::bigint) = $1`
	lookErr := conn.QueryRowContext(ctx, holder, lock.DefaultLockID).Scan(&locked.PID, &locked.Holder)
	if lookErr != nil && !errors.Is(lookErr, sql.ErrNoRows) {
		return fmt.Errorf("waiting for the migration lock: %w", err)
	}
	return locked
}
