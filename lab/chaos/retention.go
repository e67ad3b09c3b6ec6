package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/lab/faults"
)

var retentionTrials = []trial{{kind: "retention-beside-unsent", try: retentionBesideUnsent}}

// Rows of chaos's own notes get this age when they are written, so they are due at once. It is the
// shortest retention there is.
const (
	retentionDays = 3
	noteAge       = 4 * 24 * time.Hour
	dueNotes      = 20
)

// retentionBesideUnsent runs retention while due rows are not sent. It does so while Kinesis
// refuses everything, while there is no slot, and while the relay loads. A row that retention
// deletes too early is lost for good, because only the table still has it. Retention must delete
// the rows that were sent.
func retentionBesideUnsent(ctx context.Context, r *round, _ *rand.Rand) error {
	config := retention.Config{Slot: r.Slot(), Days: retentionDays, StreamRetention: 24 * time.Hour}
	purger, err := retention.New(config)
	if err != nil {
		return err
	}
	config.Wait = 500 * time.Millisecond // the rows are not confirmed, however long the wait is
	hasty, err := retention.New(config)
	if err != nil {
		return err
	}
	if err := r.writeDue(ctx); err != nil {
		return err
	}
	if err := r.await(ctx, "retention to delete what was sent", r.purged(purger)); err != nil {
		return err
	}
	err = r.during(ctx, faults.KinesisDown, nil, func(*ruleInForce) error {
		if err := r.writeDue(ctx); err != nil {
			return err
		}
		if err := r.purgeUnsent(ctx, hasty); err != nil {
			return err
		}
		if err := r.DropSlot(ctx); err != nil {
			return err
		}
		return r.purgeUnsent(ctx, hasty)
	})
	if err != nil {
		return err
	}
	return r.await(ctx, "retention to delete what was loaded", r.purged(purger))
}

// writeDue commits events that are due at once.
func (r *round) writeDue(ctx context.Context) error {
	if err := r.makeAged(ctx); err != nil {
		return err
	}
	for range dueNotes {
		if _, _, err := r.writeNote(ctx, "public.outbox", "event_data", noteAge); err != nil {
			return err
		}
	}
	return nil
}

// purge runs retention once, in a session of its own.
func (r *round) purge(ctx context.Context, purger *retention.Purger) (result retention.Result, err error) {
	whole := context.WithoutCancel(ctx) // retention begins nothing shortly before a deadline, and its wait bounds it
	err = r.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		result, err = purger.Purge(whole, conn.Conn())
		return err
	})
	return result, err
}

// purged returns nil once retention has deleted something and nothing more is due.
func (r *round) purged(purger *retention.Purger) func(context.Context) error {
	deleted := int64(0)
	return func(ctx context.Context) error {
		result, err := r.purge(ctx, purger)
		if deleted += gone(result); err == nil && (deleted < dueNotes || result.Left) {
			err = fmt.Errorf("%d rows are deleted", deleted)
		}
		return err
	}
}

// gone counts the notes that a run took away. A partition that it dropped had all of them.
func gone(result retention.Result) int64 { return result.Deleted + dueNotes*int64(len(result.Dropped)) }

// purgeUnsent runs retention where nothing proves that the due rows were sent. If it deletes some
// of them, the judge notices.
func (r *round) purgeUnsent(ctx context.Context, purger *retention.Purger) error {
	if result, err := r.purge(ctx, purger); err == nil && gone(result) == 0 {
		return errors.New("retention found no row that is due")
	}
	return nil
}
