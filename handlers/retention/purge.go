package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// lookInterval is between two looks at the slot.
const lookInterval = 200 * time.Millisecond

// Result is what a run did.
type Result struct {
	Deleted int64 `json:"deleted"`
	// Dropped are the partitions that were dropped instead, where outbox is partitioned.
	Dropped []string `json:"dropped,omitempty"`
	// OldestKept is the created_at of the oldest row that is still there, or nil when the table is empty or Purge failed.
	OldestKept *time.Time `json:"oldestKept"`
	// Left reports whether rows are still due, because ctx ended too soon for another round. The next run goes on.
	Left bool `json:"left"`
}

// Purge deletes every row that is due, or drops every partition that is due (partition.go). Rows go in rounds. A round reads the ids of due rows, notes the
// position of the WAL, waits until the slot has confirmed that position, looks at what the slot's
// reader sees, and deletes the rows of these ids and no others. conn must not be in a transaction.
// An error says why no more could be deleted. Result still counts the rows that were deleted before
// the error. A slot that is missing or lost is an error even when no row is due, because the
// operator should know now and not in 14 days.
//
// The order has a reason. A row that was seen is committed, and its commit stands in the WAL before a
// position that is noted later. The position is the end of the WAL as inserted. With
// synchronous_commit off a row is seen before its commit is flushed, so the flushed position could
// be before that commit. A slot that has confirmed the position has confirmed the commit. The
// condition "older than 14 days", asked again after the wait, would also delete rows that have
// committed since, which the slot has not confirmed. The look comes last, because it must find
// every change that hid one of these rows, and each of them was written before the look. A look
// before the wait would miss a change that was made during the wait. A change that was made and
// undone before the look is walrelay's to notice, which does not confirm past it.
func (p *Purger) Purge(ctx context.Context, conn *pgx.Conn) (result Result, err error) {
	queries := dbgen.New(conn)
	if _, err := p.look(ctx, conn, queries); err != nil {
		return result, err
	}
	purge := p.deleteRows
	if partitioned, err := isPartitioned(ctx, queries); err != nil {
		return result, err
	} else if partitioned {
		purge = p.dropPartitions
	}
	if err := purge(ctx, conn, queries, &result); err != nil {
		return result, err
	}
	result.OldestKept, err = oldest(ctx, queries)
	return result, err
}

// deleteRows deletes every row that is due, in rounds.
func (p *Purger) deleteRows(ctx context.Context, conn *pgx.Conn, queries *dbgen.Queries, result *Result) error {
	for {
		ids, err := queries.RetentionDue(ctx, dbgen.RetentionDueParams{Hours: p.hours(), MaxRows: int32(p.batch * batchesPerWait)})
		if err != nil {
			return fmt.Errorf("finding rows of outbox that are due: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		if result.Left = tooLate(ctx, p.wait); result.Left {
			return nil
		}
		// A statement of its own, or its position could be older than what the first one saw.
		position, err := queries.RetentionPosition(ctx)
		if err != nil {
			return fmt.Errorf("noting the position of the WAL: %w", err)
		}
		if err := p.await(ctx, conn, queries, position.LSN); err != nil {
			return err
		}
		if err := p.delete(ctx, queries, ids, position.LSN, result); err != nil {
			return err
		}
	}
}

// tooLate reports whether too little time is left for a round. A round whose wait is cut short would end with an error that is not about
// the slot.
func tooLate(ctx context.Context, wait time.Duration) bool {
	const reserve = 10 * time.Second
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < wait+reserve
}

func (p *Purger) delete(ctx context.Context, queries *dbgen.Queries, ids []uuid.UUID, lsn string, result *Result) error {
	for batch := range slices.Chunk(ids, p.batch) {
		n, err := queries.RetentionDelete(ctx, dbgen.RetentionDeleteParams{Ids: batch, Slot: p.slot, LSN: lsn})
		if err != nil {
			return fmt.Errorf("deleting rows of outbox: %w", err)
		}
		result.Deleted += n
		if n == int64(len(batch)) {
			continue
		}
		// Another run was faster, or the slot went bad since we looked.
		slot, err := p.slotAt(ctx, queries, lsn)
		if err != nil {
			return err
		}
		if !slot.Passed {
			return p.refusal(slot, lsn)
		}
	}
	return nil
}

// await returns nil once the slot is good and has confirmed lsn, and its reader saw every row
// before lsn. It returns an error when that cannot happen, or does not happen in time.
func (p *Purger) await(ctx context.Context, conn *pgx.Conn, queries *dbgen.Queries, lsn string) error {
	deadline := time.Now().Add(p.wait)
	for {
		slot, err := p.slotAt(ctx, queries, lsn)
		if err != nil {
			return err
		}
		late := time.Now().After(deadline)
		if slot.Passed {
			changing, err := relayed(ctx, conn, slot.Plugin)
			if err != nil || !changing {
				return err
			}
			if late {
				return fmt.Errorf("an open transaction changes table outbox or its publication, and has not ended within %s; %s: end it "+
					"(SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start)", p.wait, nothing)
			}
		} else if !slot.Good || late {
			return p.refusal(slot, lsn)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for slot %s to confirm %s: %w", p.slot, lsn, ctx.Err())
		case <-time.After(lookInterval):
		}
	}
}

// look finds what no waiting mends.
func (p *Purger) look(ctx context.Context, conn *pgx.Conn, queries *dbgen.Queries) (dbgen.RetentionSlotRow, error) {
	const start = "0/0"
	slot, err := p.slotAt(ctx, queries, start)
	if err == nil && !slot.Good {
		err = p.refusal(slot, start)
	}
	if err == nil {
		_, err = relayed(ctx, conn, slot.Plugin) // an open change may be over when the rows are due
	}
	return slot, err
}

func (p *Purger) slotAt(ctx context.Context, queries *dbgen.Queries, lsn string) (dbgen.RetentionSlotRow, error) {
	slot, err := queries.RetentionSlot(ctx, dbgen.RetentionSlotParams{Slot: p.slot, LSN: lsn})
	if errors.Is(err, pgx.ErrNoRows) {
		return slot, fmt.Errorf("replication slot %s does not exist, so nothing proves that rows are published, and none is deleted: if the name is "+
			"right, start walrelay (it sends every row and makes the slot) or the DMS task; which slots there are: SELECT slot_name, database, "+
			"plugin FROM pg_replication_slots", p.slot)
	}
	if err != nil {
		return slot, fmt.Errorf("looking at replication slot %s: %w", p.slot, err)
	}
	return slot, nil
}

// refusal says why the slot is no proof, and what to do.
func (p *Purger) refusal(slot dbgen.RetentionSlotRow, lsn string) error {
	state := fmt.Sprintf("replication slot %s (wal_status %s, active %t) has confirmed %s, and rows wait for %s",
		p.slot, slot.WalStatus, slot.Active, slot.Confirmed, lsn)
	const kept = "no further row is deleted"
	switch {
	case slot.Database != slot.ThisDatabase:
		return fmt.Errorf("%s: it is of database %q and this one is %q, so it says nothing of this outbox; %s: set SLOT_NAME to the slot of the path",
			state, slot.Database, slot.ThisDatabase, kept)
	case slot.Temporary:
		return fmt.Errorf("%s: it is temporary; %s: set SLOT_NAME to the slot of the path", state, kept)
	case !slot.Good:
		return fmt.Errorf("%s: it is about to lose its WAL or has lost it, and every row may be needed to send events again; %s: "+
			"see docs/operations.md#replication-slot-lag", state, kept)
	default:
		return fmt.Errorf("%s: not confirmed within %s; %s: does the relay run? See docs/operations.md#replication-slot-lag", state, p.wait, kept)
	}
}

// Plan is what Purge would do.
type Plan struct {
	Due       int64      `json:"due"`       // rows that are old enough
	Oldest    *time.Time `json:"oldest"`    // created_at of the oldest row, or nil when the table is empty
	Confirmed string     `json:"confirmed"` // by the slot, an LSN
}

// Plan counts the rows that are due and looks at the slot. It writes nothing, not even the commit that a position in the WAL
// needs, so it cannot know whether the slot will confirm in time. Its errors are those of Purge that can be seen now.
func (p *Purger) Plan(ctx context.Context, conn *pgx.Conn) (Plan, error) {
	queries := dbgen.New(conn)
	slot, err := p.look(ctx, conn, queries)
	if err != nil {
		return Plan{}, err
	}
	due, err := queries.RetentionCount(ctx, p.hours())
	if err != nil {
		return Plan{}, fmt.Errorf("counting rows of outbox that are due: %w", err)
	}
	first, err := oldest(ctx, queries)
	return Plan{Due: due, Oldest: first, Confirmed: slot.Confirmed}, err
}

func oldest(ctx context.Context, queries *dbgen.Queries) (*time.Time, error) {
	at, err := queries.RetentionOldest(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding the oldest row of outbox: %w", err)
	}
	at = at.UTC()
	return &at, nil
}
