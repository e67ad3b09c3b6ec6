package walrelay

import (
	"context"
	"log/slog"
	"time"

	"rds-outbox-demo/internal/emf"
)

// firstWord is how long a wait or a load may last before the log says so.
const firstWord = 5 * time.Second

// pace spaces the lines about a wait or a load. The gaps double from firstWord up to a minute, so
// there is at least one line a minute.
type pace struct {
	since, next time.Time
	gap         time.Duration
}

func newPace() *pace {
	now := time.Now()
	return &pace{since: now, next: now.Add(firstWord), gap: firstWord}
}

// due reports whether it is time for a line, and then sets the time of the next one.
func (p *pace) due() bool {
	now := time.Now()
	if now.Before(p.next) {
		return false
	}
	p.gap = min(2*p.gap, measureInterval)
	p.next = now.Add(p.gap)
	return true
}

// lasted returns the whole seconds since the beginning.
func (p *pace) lasted() int64 { return int64(time.Since(p.since).Seconds()) }

// waiting logs that the relay waits for something, at the gaps of a pace, until stop is called. why
// returns what is known about the cause, and may be nil. When stop has returned, why is not
// running.
func (r *Relay) waiting(ctx context.Context, what string, why func(context.Context) []slog.Attr) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for p := newPace(); ; {
			select {
			case <-ctx.Done():
				return
			case <-ended:
				return
			case <-time.After(time.Until(p.next)):
			}
			p.due()
			var attributes []slog.Attr
			if why != nil {
				attributes = why(ctx)
			}
			r.logWaiting(ctx, what, p, attributes)
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// logWaiting writes a line about a wait. attributes are what is known about its cause.
func (r *Relay) logWaiting(ctx context.Context, what string, p *pace, attributes []slog.Attr) {
	line := append([]slog.Attr{slog.String("waiting_for", what), slog.Int64("waiting", p.lasted())}, attributes...)
	r.logMetrics(ctx, slog.LevelWarn, "waiting", line, emf.Metric{Name: "waiting", Unit: emf.Seconds})
}

// logMetrics writes a line about the slot. Each metric has the name of one of the attributes.
func (r *Relay) logMetrics(ctx context.Context, level slog.Level, message string, attributes []slog.Attr, metrics ...emf.Metric) {
	line := append([]slog.Attr{slog.Int("hop", 3), slog.String("StreamName", r.stream), slog.String("SlotName", r.slot)}, attributes...)
	r.log.LogAttrs(ctx, level, message, append(line, emf.Directive(time.Now(), dimensions, metrics...))...)
}
