package outboxctl

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/lock"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/plural"
)

// fewAhead is fewer partitions than retention keeps ahead, which are six or seven.
const fewAhead = 5

// partitions checks that every insert will have a partition, and that no killed partitioning has left a CHECK that refuses it.
func partitions(ctx context.Context, conn *pgx.Conn) (check, error) {
	found, err := dbgen.New(conn).PartitionsHealth(ctx, lock.DefaultLockID)
	if err != nil {
		return check{}, err
	}
	return judgePartitions(found), nil
}

func judgePartitions(p dbgen.PartitionsHealthRow) check {
	reach := "until " + p.Until + " UTC, " + plural.Of(p.Ahead, "partition") + " ahead"
	const attach = "see whether the function retention runs (retention in docs/operations.md), or run outboxctl purge, which attaches them, too"
	switch {
	case p.Leftover != "" && p.Migrating:
		return check{State: stateWarn, Finding: "outbox is being partitioned", Do: "wait for the migration that is at work"}
	case p.Leftover != "":
		return check{State: stateFail, Finding: "a partitioning was killed, and its " + p.Leftover + " will refuse later inserts", Do: "make migrate, which removes it"}
	case !p.Partitioned:
		return check{State: stateOK, Finding: "outbox has none"}
	case !p.Tended:
		return check{State: stateFail, Finding: reach + ", but the functions that attach the next ones are missing", Do: "make migrate CMD=partition"}
	case p.OpenEnded != "":
		return check{
			State: stateWarn, Finding: p.OpenEnded + " has no upper bound: retention never drops it, and cannot attach a partition for rows that it has",
			Do: "give it bounds (partition-without-an-end in docs/operations.md)",
		}
	case p.UsedUp:
		return check{State: stateFail, Finding: "no partition for rows of now: every insert fails", Do: attach}
	case p.Ahead < fewAhead:
		return check{State: stateWarn, Finding: reach + ", which is few: inserts fail when they are used up", Do: attach}
	default:
		return check{State: stateOK, Finding: reach}
	}
}
