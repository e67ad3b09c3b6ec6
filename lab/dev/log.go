package dev

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// calmLines are as many warnings a second as somebody can read. A database that is stopped under load makes hundreds.
const calmLines = 10

// calm passes so many lines a second on, and says how many more there were. All of them are in the log file.
type calm struct {
	slog.Handler
	count *calmCount
}

type calmCount struct {
	mu      sync.Mutex
	second  time.Time // when counting began
	lines   int
	skipped int
}

func newCalm(h slog.Handler) calm { return calm{h, &calmCount{}} }

func (c calm) Handle(ctx context.Context, r slog.Record) error {
	n := c.count
	n.mu.Lock()
	now := time.Now()
	if now.Sub(n.second) >= time.Second {
		n.second, n.lines = now, 0
	}
	n.lines++
	pass := n.lines <= calmLines
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

// sum tells of the lines that were left out.
func (c calm) sum() {
	c.count.mu.Lock()
	skipped := c.count.skipped
	c.count.skipped = 0
	c.count.mu.Unlock()
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "and more warnings: see the log", 0)
	r.Add("left_out", skipped)
	_ = c.Handler.Handle(context.Background(), r)
}

func (c calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calm{c.Handler.WithAttrs(attrs), c.count}
}
func (c calm) WithGroup(name string) slog.Handler { return calm{c.Handler.WithGroup(name), c.count} }
