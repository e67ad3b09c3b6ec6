package outboxctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/plural"
)

// otherSlots lists the slots that rows of this database can be read through, besides the path's own. A user with REPLICATION, as the
// relay's is, can make one and read every table. It holds back WAL, too. Whether somebody wanted it, nobody but a person knows.
func (d doctor) otherSlots(ctx context.Context, conn *pgx.Conn) (check, error) {
	slots, err := dbgen.New(conn).SlotsOther(ctx, d.Slot)
	if err != nil {
		return check{}, err
	}
	if len(slots) == 0 {
		return check{State: stateOK, Finding: "none"}, nil
	}
	var described []string
	for _, slot := range slots {
		kind := "physical, the whole server"
		if slot.Plugin != "" {
			kind = slot.Plugin
		}
		if slot.Active {
			kind += ", active"
		}
		described = append(described, fmt.Sprintf("%s (%s)", slot.Name, kind))
	}
	return check{State: stateWarn, Do: "find out whose they are: see other-slots in docs/operations.md",
		Finding: plural.Of(len(slots), "slot") + " that rows can be read through, too: " + strings.Join(described, ", ")}, nil
}
