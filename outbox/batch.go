package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
)

// Batch is a dbgen.DBTX that sends nothing before Send. A change and its event then take one round trip, and both are still written by
// methods whose parameters the compiler checks:
//
//	var batch outbox.Batch
//	err := dbgen.New(&batch).CarInsert(ctx, car)
//	err = outbox.Append(ctx, &batch, event)
//	err = batch.Send(ctx, conn)
//
// The zero Batch is ready. It takes statements that return nothing (sqlc's :exec), because no result is there before Send.
type Batch struct{ queued pgx.Batch }

// Exec adds a statement. The tag is empty, so a method that returns the number of rows (:execrows) is refused. It would say 0.
func (b *Batch) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if name, _, _ := strings.Cut(sql, "\n"); strings.HasPrefix(name, "-- name: ") && !strings.HasSuffix(name, " :exec") {
		return pgconn.CommandTag{}, fmt.Errorf("outbox.Batch: %q returns something, and nothing is there before Send", name[len("-- name: "):])
	}
	for i, arg := range args {
		if id, ok := arg.(uuid.UUID); ok {
			args[i] = [16]byte(id) // pgx asks a uuid.UUID for database/sql's text first, 18 allocations later
		}
	}
	if b.queued.QueuedQueries == nil {
		b.queued.QueuedQueries = make([]*pgx.QueuedQuery, 0, 4) // room for a change, its event and a stored answer
	}
	statement := b.queued.Queue(sql, args...)
	if sql == dbgen.OutboxInsert {
		statement.Fn = func(results pgx.BatchResults) error {
			_, err := results.Exec()
			return writeError(err)
		}
	}
	return pgconn.CommandTag{}, nil
}

var errNoResults = errors.New("outbox.Batch reads nothing: no result is there before Send")

// Query refuses.
func (b *Batch) Query(context.Context, string, ...any) (pgx.Rows, error) { return nil, errNoResults }

// QueryRow returns a row that refuses to be scanned.
func (b *Batch) QueryRow(context.Context, string, ...any) pgx.Row { return refusedRow{} }

type refusedRow struct{}

func (refusedRow) Scan(...any) error { return errNoResults }

// Send runs the statements in one round trip and returns the first error, an *InvalidEventError for an event that only the database
// could refuse. On a connection outside of a transaction the server runs them as one transaction, so they are one commit. An empty
// batch sends nothing.
func (b *Batch) Send(ctx context.Context, conn interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}) error {
	if b.queued.Len() == 0 {
		return nil
	}
	return conn.SendBatch(ctx, &b.queued).Close()
}
