package walrelay

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// loadPage is how many rows are read at once: 64 of the largest are 4 MB.
const loadPage = 64

var snapshotPattern = regexp.MustCompile(`^[0-9A-Fa-f-]+$`)

// load makes the slot without a gap. A slot sees only what commits after it; everything older is in the table. So: a temporary
// slot that exports its snapshot, the rows of exactly that snapshot as operation load, and only when Kinesis has accepted all
// of them a permanent copy of the slot. A crash before the copy leaves no slot behind, and the next start loads again.
//
// The obvious order, permanent slot first, leaves after a crash a slot that looks as if the load had been done.
func (r *Relay) load(ctx context.Context, control *pgx.Conn, replication *pgconn.PgConn) error {
	start := time.Now()
	queries := dbgen.New(control)
	// Of several relays one loads; the others stand by. Whoever comes second finds the slot made.
	if locked, err := queries.LoadLock(ctx, r.slot); err != nil {
		return fmt.Errorf("locking the load: %w", err)
	} else if !locked {
		return errSlotActive
	}
	if exists, err := r.checkSlot(ctx, queries); err != nil || exists {
		return err
	}
	temporary := fmt.Sprintf("%.40s_load_%d", r.slot, replication.PID())
	slot, err := pglogrepl.CreateReplicationSlot(ctx, replication, temporary, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Temporary:      true, // goes with the connection
		SnapshotAction: "EXPORT_SNAPSHOT",
		Mode:           pglogrepl.LogicalReplication,
	})
	if err != nil {
		return fmt.Errorf("creating temporary slot %s: %w", temporary, err)
	}
	// The copy at the end must not fail for a reason that is there now: every row would have been sent for nothing.
	probe := dbgen.SlotCopyParams{Source: temporary, Slot: temporary + "_probe", Temporary: true}
	if err := queries.SlotCopy(ctx, probe); err != nil {
		return fmt.Errorf("copying a slot: %w", err)
	}
	if err := queries.SlotDrop(ctx, probe.Slot); err != nil {
		return fmt.Errorf("dropping slot %s: %w", probe.Slot, err)
	}
	r.log.Info("slot is missing: loading the retained rows", "hop", 3, "slot", r.slot, "consistent_point", slot.ConsistentPoint)

	loadCtx, cancel := context.WithCancel(ctx)
	p := newPipeline()
	done := make(chan struct{})
	go func() {
		defer close(done)
		sender{r.kinesis, r.stream, r.slot, r.log}.run(loadCtx, p)
	}()
	rows, err := r.loadSnapshot(ctx, control, slot.SnapshotName, p)
	if err == nil {
		err = p.await(ctx, p.empty)
	}
	cancel()
	<-done
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RelayBeforeSlotCopy)
	err = queries.SlotCopy(ctx, dbgen.SlotCopyParams{Source: temporary, Slot: r.slot})
	if sabotage.On(sabotage.LoadWithoutSnapshot) {
		_, err = control.Exec(ctx, "SELECT pg_drop_replication_slot($1), pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
	}
	if err != nil {
		return fmt.Errorf("copying slot %s to %s: %w", temporary, r.slot, err)
	}
	failpoint.Hit(failpoint.RelayAfterSlotCopy)
	r.log.Info("load complete, slot made", "hop", 4, "slot", r.slot, "rows", rows, "duration_ms", time.Since(start).Milliseconds())
	return nil
}

// loadSnapshot hands the rows that the snapshot shows to the pipeline, ordered by aggregate and version.
func (r *Relay) loadSnapshot(ctx context.Context, control *pgx.Conn, snapshot string, p *pipeline) (rows int, err error) {
	if !snapshotPattern.MatchString(snapshot) {
		return 0, fmt.Errorf("the server exported a snapshot with the name %q", snapshot)
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, control, options, func(tx pgx.Tx) error {
		// SET takes no parameters; the pattern above keeps the text harmless.
		if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT '"+snapshot+"'"); err != nil {
			return fmt.Errorf("taking over snapshot %s: %w", snapshot, err)
		}
		after := dbgen.OutboxPageParams{MaxRows: loadPage}
		for {
			page, err := dbgen.New(tx).OutboxPage(ctx, after)
			if err != nil {
				return fmt.Errorf("reading outbox behind %s %s: %w", after.AggregateType, after.AggregateID, err)
			}
			for _, row := range page {
				record := outbox.Record{Row: row, Operation: outbox.OperationLoad, Timestamp: time.Now()}
				loaded, err := newPending(record, nil)
				if err != nil {
					return err
				}
				p.add(loaded)
			}
			rows += len(page)
			if len(page) < loadPage {
				return nil
			}
			last := page[len(page)-1]
			after.AggregateType, after.AggregateID, after.AggregateVersion = last.AggregateType, last.AggregateID, last.AggregateVersion
			if err := p.await(ctx, func() bool { return !p.full() }); err != nil {
				return err
			}
		}
	})
	return rows, err
}

// await returns when the condition holds, with an error when ctx ends or Kinesis refuses for good first.
func (p *pipeline) await(ctx context.Context, condition func() bool) error {
	for !condition() {
		if err := p.failure(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.progress:
		}
	}
	return nil
}
