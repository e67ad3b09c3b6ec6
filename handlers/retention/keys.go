package retention

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// keyBatch is about how many keys one statement deletes.
const keyBatch = 5000

// PurgeKeys deletes the rows of table idempotency that are over, and tells how many. No event depends on them, so no slot has to prove
// anything. What is left when ctx's deadline is near goes with the next run.
func PurgeKeys(ctx context.Context, conn *pgx.Conn) (deleted int64, err error) {
	queries := dbgen.New(conn)
	// Keys take at most half of the time, because the rows of outbox are due in the same run.
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/2))
		defer cancel()
	}
	for !tooLate(ctx, 0) {
		n, err := queries.IdempotencyPurge(ctx, keyBatch)
		if err != nil {
			return deleted, fmt.Errorf("deleting idempotency keys: %w", err)
		}
		if n == 0 {
			break
		}
		deleted += n
	}
	return deleted, nil
}
