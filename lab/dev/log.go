package dev

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// maxLinesASecond is how many warnings a second a person can read. A database that is stopped under load makes hundreds.
const maxLinesASecond = 10

// rateLimited passes on maxLinesASecond lines a second, and says how many more there were. The log file has all of them.
type rateLimited struct {
	slog.Handler
	count *rateCount
}

type rateCount struct {
	mu      sync.Mutex
	second  time.Time // when counting began
	lines   int
	skipped int
}

func newRateLimited(h slog.Handler) rateLimited { return rateLimited{h, &rateCount{}} }

func (c rateLimited) Handle(ctx context.Context, r slog.Record) error {
	n := c.count
	n.mu.Lock()
	now := time.Now()
	if now.Sub(n.second) >= time.Second {
		n.second, n.lines = now, 0
	}
	n.lines++
	pass := n.lines <= maxLinesASecond
	if !pass {
		if n.skipped++; n.skipped == 1 {
			time.AfterFunc(time.Until(n.second.Add(time.Second)), c.sum)
		}
	}
	n.mu.Unlock()
	if !pass {
		return nil
	}
	return c.Handler.Handle(ctx, r)
}

// sum logs how many lines were left out.
func (c rateLimited) sum() {
	c.count.mu.Lock()
	skipped := c.count.skipped
	c.count.skipped = 0
	c.count.mu.Unlock()
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "and more warnings: see the log", 0)
	r.Add("left_out", skipped)
	_ = c.Handler.Handle(context.Background(), r)
}

func (c rateLimited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return rateLimited{c.Handler.WithAttrs(attrs), c.count}
}
func (c rateLimited) WithGroup(name string) slog.Handler {
	return rateLimited{c.Handler.WithGroup(name), c.count}
}
