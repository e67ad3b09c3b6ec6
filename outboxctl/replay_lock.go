package outboxctl

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// lockSending lets one session of the database at a time send events again, until unlock is called. Two of them, whatever they send, could
// put an older version of an aggregate behind the newer one that the other has just put. name says who we are to the one who is refused.
func lockSending(ctx context.Context, conn *pgx.Conn, name string) (unlock func(), err error) {
	queries := dbgen.New(conn)
	if err := queries.OpsName(ctx, "outboxctl "+name); err != nil {
		return nil, fmt.Errorf("naming the session: %w", err)
	}
	locked, err := queries.OpsLock(ctx)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	if locked {
		// Closing conn is not enough, because a script's next command may ask for the lock before the server has noticed.
		return func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
			defer cancel()
			_ = queries.OpsUnlock(ctx) // else the end of the session does it
		}, nil
	}
	holder, err := queries.OpsLockHolder(ctx)
	if err != nil {
		return nil, fmt.Errorf("another redrive or replay runs on this database: let it end first (looking who it is: %w)", err)
	}
	return nil, fmt.Errorf("another one runs on this database: %s, pid %d, since %s: let it end, or stop it, first",
		holder.ApplicationName, holder.Pid, holder.Since.UTC().Format(time.RFC3339))
}
