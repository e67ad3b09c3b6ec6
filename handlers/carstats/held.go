package carstats

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/emf"
)

// lookAtHeld asks for the versions that held events wait for, and writes a line with their numbers. Without InOrder it returns an error while
// an event is held. Nobody would count that event, and its message is deleted.
func (s *Subscriber) lookAtHeld(ctx context.Context, conn *pgxpool.Conn) error {
	if !s.config.InOrder {
		waiting, err := inbox.CountHeld(ctx, conn, s.config.Ordered)
		if err == nil && waiting.Held > 0 {
			err = fmt.Errorf("%d events are held from a time in order: set IN_ORDER to true until none is", waiting.Held)
		}
		return err
	}
	waiting, err := inbox.Ask(ctx, conn, s.config.Ordered, func(ctx context.Context, m inbox.Missing) error {
		level, message := slog.LevelWarn, "car stats: versions are missing"
		if m.GivenUp {
			level, message = slog.LevelError, "car stats: gave up waiting for versions"
		}
		s.config.Logger.LogAttrs(ctx, level, message, slog.Int("hop", 6), slog.String("aggregate_type", m.AggregateType),
			slog.String("aggregate_id", m.AggregateID), slog.Int64("first_version", m.First), slog.Int64("last_version", m.Last),
			slog.Float64("waited_seconds", m.Waited.Seconds()))
		if s.config.Ask == nil || m.GivenUp {
			return nil
		}
		return s.config.Ask(ctx, m)
	})
	if err != nil {
		return err
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "car stats: held", slog.Int("hop", 6), slog.String("FunctionName", s.config.FunctionName),
		slog.Int64("held", waiting.Held), slog.Int64("given_up", waiting.GivenUp),
		emf.Directive(time.Now(), []string{"FunctionName"}, emf.Metric{Name: "held", Unit: emf.Count}, emf.Metric{Name: "given_up", Unit: emf.Count}))
	return nil
}
