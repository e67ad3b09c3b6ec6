package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// maxLog bounds the log of a run: 500 cars a second write half a gigabyte in an hour. What is older than the last two files is gone.
const maxLog = 64 << 20

// logFile is a file of which the one before is kept as <path>.1.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// openLog begins a new file.
func openLog(path string) (*logFile, error) {
	l := &logFile{path: path, max: maxLog}
	return l, l.begin()
}

func (l *logFile) begin() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotating the log: %w", err)
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	if l.file != nil {
		err = l.file.Close()
	}
	l.file, l.size = file, 0
	return err
}

// Write writes whole lines, as slog gives them.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(line)) > l.max && l.size > 0 {
		if err := l.begin(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

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
