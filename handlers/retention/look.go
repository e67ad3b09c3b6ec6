package retention

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/outbox"
)

// nothing is part of every error about a slot that confirms rows which no relay could see.
const nothing = "no row is deleted, because table outbox may hold the only copy of events that were not sent"

// relayed returns an error if the reader of the slot may not see every insert into outbox. changing
// reports whether an open transaction changes the table or its publication.
//
// A slot proves that its reader has confirmed a position. It does not prove that the rows before
// the position were ever shown to the reader. If the table is swapped, renamed or taken out of the
// publication, the slot confirms past new rows as if they were another table's.
func relayed(ctx context.Context, conn *pgx.Conn, plugin string) (changing bool, err error) {
	look := outbox.LookAtPublication
	if plugin != "pgoutput" {
		look = outbox.LookAtTable
	}
	found, err := look(ctx, conn)
	if err != nil {
		return false, err
	}
	if found.Problem != "" {
		return false, fmt.Errorf("%s; %s: %s", found.Problem, nothing, found.Remedy)
	}
	return found.Changing, nil
}
