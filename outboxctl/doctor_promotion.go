package outboxctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// promotion checks what the promotion of a standby would do to the slot. It uses the words of walrelay. Run against a standby, it sees
// what only the standby knows.
func (d doctor) promotion(ctx context.Context, conn *pgx.Conn) (check, error) {
	problems, err := outbox.LookAtPromotion(ctx, conn, d.Slot)
	if err != nil {
		return check{}, err
	}
	c := check{State: stateOK, Finding: "nothing that this server knows of would harm the path"}
	var findings, remedies []string
	for _, p := range problems {
		findings, remedies = append(findings, p.Finding), append(remedies, p.Remedy)
		if c.State != stateFail {
			c.State = stateWarn
		}
		if p.Stalls {
			c.State = stateFail
		}
	}
	if len(problems) > 0 {
		c.Finding, c.Do = strings.Join(findings, "; "), strings.Join(remedies, "; ")
	}
	return c, nil
}

// isStandby reports whether the server is a standby. All checks but promotion ask what only a primary can answer.
func isStandby(ctx context.Context, conn *pgx.Conn) (bool, error) {
	standby, err := dbgen.New(conn).SettingGet(ctx, "in_hot_standby")
	if err != nil {
		return false, fmt.Errorf("reading in_hot_standby: %w", err)
	}
	return standby == "on", nil
}
