package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// LookAtTable finds out whether a relay that reads table public.outbox by its name sees every
// insert and can relay it. DMS is such a relay, and does not use the publication. LookAtTable sets
// only Problem and Remedy of the Look. No database knows the settings of the DMS task. The error is
// PostgreSQL's.
func LookAtTable(ctx context.Context, db dbgen.DBTX) (Look, error) {
	facts, err := dbgen.New(db).TableLook(ctx)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // no row means that there is no schema public
		return Look{}, fmt.Errorf("looking at table public.outbox: %w", err)
	}
	var look Look
	switch {
	case !facts.Present:
		look.Problem = "there is no table public.outbox"
		look.Remedy = "run the migrations (make migrate), or give the table its name and schema back: DMS does not see events in a table of another name"
	case facts.Partitioned:
		look.Problem = "table public.outbox is partitioned, and AWS DMS does not follow partitions"
		look.Remedy = "relay it with walrelay, and set SLOT_NAME to walrelay's slot (docs/scaling.md, outbox in partitions)"
	case !facts.Logged:
		look.Problem, look.Remedy = "table public.outbox is not logged, so its rows are not in the WAL", "ALTER TABLE public.outbox SET LOGGED"
	case !facts.ShortKey:
		look.Problem = "column aggregate_id of public.outbox is not varchar, and DMS makes no partition key of a column that it takes for a LOB"
		look.Remedy = "ALTER TABLE public.outbox ALTER COLUMN aggregate_id TYPE varchar(255)"
	case !facts.DeletesHaveKey:
		look.Problem = "the replica identity of public.outbox has no aggregate_id, so a deleted row reaches DMS without its partition key"
		look.Remedy = "ALTER TABLE public.outbox REPLICA IDENTITY DEFAULT, with primary key (aggregate_type, aggregate_id, aggregate_version)"
	}
	return look, nil
}
