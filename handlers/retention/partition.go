package retention

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
)

// A partitioned outbox has functions of the owner (migrate/partition.sql). The schema that sqlc knows does not have them, because
// partitions are opt-in.
const (
	attachPartitions = "SELECT public.outbox_partitions_attach()"
	closePartition   = "SELECT coalesce(public.outbox_partition_close(make_interval(secs => $1)), '')"
	dropPartition    = "SELECT public.outbox_partition_drop($1, $2, $3::text::pg_lsn)"
)

const lockNotAvailable = "55P03"

// AttachPartitions makes the partitions that a partitioned outbox will need next, and returns how many it made. Without partitions it
// does nothing. It needs no slot, and must run also where Purge fails or is switched off, because without a partition for them inserts fail.
func AttachPartitions(ctx context.Context, conn *pgx.Conn) (attached int, err error) {
	if partitioned, err := isPartitioned(ctx, dbgen.New(conn)); err != nil || !partitioned {
		return 0, err
	}
	if err := conn.QueryRow(ctx, attachPartitions).Scan(&attached); err != nil {
		return 0, fmt.Errorf("attaching partitions of outbox, without which inserts will fail: %w", err)
	}
	return attached, nil
}

func isPartitioned(ctx context.Context, queries *dbgen.Queries) (bool, error) {
	partitioned, err := queries.RetentionPartitioned(ctx)
	if err != nil {
		return false, fmt.Errorf("asking whether outbox is partitioned: %w", err)
	}
	return partitioned, nil
}

// dropPartitions drops every partition that ended longer ago than rows are kept.
func (p *Purger) dropPartitions(ctx context.Context, conn *pgx.Conn, _ *dbgen.Queries, result *Result) error {
	deadline := time.Now().Add(p.wait)
	for {
		part, err := p.dropOldest(ctx, conn)
		var refused *pgconn.PgError
		switch {
		case errors.As(err, &refused) && refused.Code == lockNotAvailable && time.Now().Before(deadline):
			// A writer or a reader has the lock. To queue for it would lock out every writer behind us.
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the lock on a partition of outbox: %w", ctx.Err())
			case <-time.After(lookInterval):
			}
		case errors.Is(err, errTooLate):
			result.Left = true
			return nil
		case refused != nil && refused.Code == lockNotAvailable:
			return fmt.Errorf("%w: a transaction has kept a lock on table outbox for %s: end it "+
				"(SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start)", err, p.wait)
		case err != nil:
			return err
		case part == "":
			return nil
		default:
			result.Dropped = append(result.Dropped, part)
			deadline = time.Now().Add(p.wait)
		}
	}
}

var errTooLate = errors.New("too little time is left")

// dropOldest drops the oldest partition if it is due, and returns its name, or "". It is one transaction. It locks later writers out of the
// partition, notes the position of the WAL, and waits for the slot as a round of rows does (await). The lock has to be held meanwhile,
// because a transaction of long ago may still insert into the partition.
func (p *Purger) dropOldest(ctx context.Context, conn *pgx.Conn) (part string, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, closePartition, p.keep.Seconds()).Scan(&part); err != nil || part == "" {
			return err
		}
		if tooLate(ctx, p.wait) {
			return errTooLate
		}
		// In this transaction the position would be followed by no commit, and on an idle server no slot would reach it.
		beside, err := pgx.ConnectConfig(ctx, conn.Config())
		if err != nil {
			return fmt.Errorf("connecting to the database: %w", err)
		}
		defer func() { _ = beside.Close(context.WithoutCancel(ctx)) }()
		queries := dbgen.New(beside)
		position, err := queries.RetentionPosition(ctx)
		if err != nil {
			return fmt.Errorf("noting the position of the WAL: %w", err)
		}
		if err := p.await(ctx, beside, queries, position.LSN); err != nil {
			return err
		}
		dropped := false
		if err := tx.QueryRow(ctx, dropPartition, part, p.slot, position.LSN).Scan(&dropped); err != nil || dropped {
			return err
		}
		slot, err := p.slotAt(ctx, queries, position.LSN) // it went bad since we looked
		if err == nil {
			err = p.refusal(slot, position.LSN)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("dropping the oldest partition of outbox: %w", err)
	}
	return part, nil
}
