package walrelay

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/emf"
)

// measureInterval is how often the slot is measured; CloudWatch keeps one value a minute.
const measureInterval = time.Minute

// measure writes what the slot holds back, until ctx ends. On a connection of its own each time: the streaming one cannot be asked.
func (r *Relay) measure(ctx context.Context, p *pipeline) {
	for ctx.Err() == nil {
		if err := r.measureOnce(ctx, p.refusal()); err != nil && ctx.Err() == nil {
			r.log.Warn("measuring the slot", "hop", 3, "slot", r.slot, "error", err)
		}
		wait(ctx, measureInterval)
	}
}

func (r *Relay) measureOnce(ctx context.Context, refused string) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	conn, err := r.database.Connect(ctx, nil)
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer closeConn(conn.PgConn())
	slot, err := dbgen.New(conn).SlotHealth(ctx, r.slot)
	if err != nil {
		return fmt.Errorf("reading slot %s: %w", r.slot, err)
	}
	level, attributes := slog.LevelInfo, append(slotAttributes(slot), slog.Bool("ready", refused == ""))
	if refused != "" {
		level = slog.LevelWarn
		attributes = append(attributes, slog.String("refused", "Kinesis answers "+refused))
	}
	r.logMetrics(ctx, level, "slot", attributes, slotMetrics...)
	return nil
}

// slotAttributes returns the values of slotMetrics.
func slotAttributes(slot dbgen.SlotHealthRow) []slog.Attr {
	return []slog.Attr{slog.Int64("slot_lag_bytes", slot.Unconfirmed), slog.Int64("retained_wal_bytes", slot.Retained)}
}

var slotMetrics = []emf.Metric{{Name: "slot_lag_bytes", Unit: emf.Bytes}, {Name: "retained_wal_bytes", Unit: emf.Bytes}}
