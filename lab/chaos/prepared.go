package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/lab/judge"
)

// prepared writes a note in a transaction that commits in two phases, as a transaction manager
// does. It calls while when the transaction is prepared and no session holds it.
func prepared(while func(ctx context.Context, r *round, random *rand.Rand, gid string) error) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, random *rand.Rand) error {
		for {
			gid := uuid.NewString()
			t := &transaction{random: random}
			span := judge.Span{Began: r.history.moment()}
			if err := r.prepare(ctx, t, gid); err != nil {
				err = r.finish(ctx, "ROLLBACK PREPARED", gid) // the transaction may be prepared, and only the answer lost
				r.note(t, judge.RolledBack, span)
				if err := errors.Join(err, sleep(ctx, 50*time.Millisecond)); err != nil {
					return err
				}
				continue
			}
			err := while(ctx, r, random, gid)
			if err := r.finish(ctx, "COMMIT PREPARED", gid); err != nil {
				return err
			}
			span.Ended = r.history.moment()
			r.note(t, judge.Committed, span)
			return err
		}
	}
}

func (r *round) prepare(ctx context.Context, t *transaction, gid string) error {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	t.tx, err = conn.Begin(ctx)
	if err != nil {
		return err
	}
	note := uuid.New()
	err = t.appendNote(ctx, "NoteTaken", note, 1)
	if err == nil {
		err = t.appendNote(ctx, "NoteChanged", note, 2)
	}
	if err == nil {
		_, err = t.tx.Exec(ctx, fmt.Sprintf("PREPARE TRANSACTION '%s'", gid))
	}
	if err != nil {
		_ = t.tx.Rollback(context.WithoutCancel(ctx)) // the session may be gone
	}
	return err
}

// finish ends a prepared transaction, even when ctx has ended. If the transaction is not there, an
// earlier attempt ended it, and that answer was lost.
func (r *round) finish(ctx context.Context, command, gid string) error {
	return r.await(context.WithoutCancel(ctx), command, func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, fmt.Sprintf("%s '%s'", command, gid))
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) && refusal.Code == "42704" { // undefined_object
			return nil
		}
		return err
	})
}

// lasting leaves the transaction prepared for a while. It then commits a note that is older than
// everything that was committed meanwhile.
func lasting(ctx context.Context, _ *round, random *rand.Rand, _ string) error {
	return sleep(ctx, between(random, 500*time.Millisecond, 2*time.Second))
}

// besideNewSlot lets the relay make its slot while the transaction is prepared. The server makes
// the slot only when it has ended.
func besideNewSlot(ctx context.Context, r *round, _ *rand.Rand, gid string) error {
	if err := r.DropSlot(ctx); err != nil {
		return err
	}
	return r.await(ctx, "the new slot to wait for the prepared transaction", r.holds(`SELECT EXISTS (
		SELECT FROM pg_locks JOIN pg_prepared_xacts ON transaction = transactionid
		WHERE gid = $1 AND locktype = 'transactionid' AND NOT granted)`, gid))
}
