package pgsession

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxPlanTries is more than one retry, because another migration may commit between the retry's Parse and its Execute.
const maxPlanTries = 3

// Replan calls do, which is one statement or one whole transaction on conn. It calls do again when the server refuses a prepared
// statement because a migration has changed the type of a column that the statement returns.
//
// It is safe to do it again. The server raises this error before it executes the statement, and the error rolls back the
// transaction. pgx forgets only the statement that failed, so each further statement of do would fail once, too. That is why
// Replan drops all prepared statements of the connection first.
func Replan(ctx context.Context, conn *pgx.Conn, do func() error) error {
	err := do()
	for tries := 1; tries < maxPlanTries && planIsStale(err); tries++ {
		if conn.DeallocateAll(ctx) != nil {
			return err
		}
		err = do()
	}
	return err
}

// planIsStale reports whether err is "cached plan must not change result type". Its SQLSTATE, feature_not_supported, is that of
// other errors, too. They come again, and do no harm.
func planIsStale(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == "0A000"
}
