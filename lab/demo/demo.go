// Package demo is `make demo`: it sends cars through a throw-away path, waits until their events are on the bus, and judges every
// one of them against the table: there, right, in order, once.
//
// Its check shares no code with the path: package judge states the contract of the bus entry again.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

// patience is how long nothing may arrive before the missing events count as lost.
const patience = 30 * time.Second

// Config of a run.
type Config struct {
	Path     local.Config // Dir, Log, OnEvent and Progress are set here
	Cars     int
	JSON     bool      // one JSON object on Out instead of text
	Out      io.Writer // the report
	Progress io.Writer // what is going on meanwhile
}

// Run makes the run and prints its report. The error says what is wrong with the events, or what stopped the run.
func Run(ctx context.Context, c Config) (err error) {
	dir, err := os.MkdirTemp("", "outbox-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w (logs and data are in %s)", err, dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	// With a server of the user's own a database of our own on it: the demo counts every row of outbox.
	if c.Path.DatabaseURL != "" {
		drop, dropErr := c.scratchDatabase(ctx)
		if dropErr != nil {
			return dropErr
		}
		defer func() { err = errors.Join(err, drop()) }()
	}
	logFile, err := os.Create(filepath.Join(dir, "demo.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	arrivals := &arrivals{byID: map[uuid.UUID]*arrived{}}
	c.Path.Dir = dir
	c.Path.Log = slog.New(slog.NewMultiHandler(
		slog.NewJSONHandler(logFile, nil),
		slog.NewTextHandler(c.Progress, &slog.HandlerOptions{Level: slog.LevelWarn}),
	))
	c.Path.OnEvent = arrivals.add
	c.Path.Progress = func(what string) { fmt.Fprintf(c.Progress, "starting %s\n", what) }

	p, err := local.Start(ctx, c.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	start := time.Now()
	written, err := write(ctx, p.APIURL, c.Cars)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Progress, "%d cars created and %d changed in %s, waiting for their events\n",
		written.cars, written.updates, time.Since(start).Round(time.Millisecond))
	if err := arrivals.wait(ctx, written.cars+written.updates, p.Failed()); err != nil {
		return err
	}
	arrivals.settle() // what comes twice comes late
	report, err := check(ctx, p.DatabaseURL, written, arrivals)
	if err != nil {
		return err
	}
	if err := report.print(c.Out, c.JSON); err != nil {
		return err
	}
	if !report.Pass {
		return errors.New("demo: the events are not what was written; see above")
	}
	return nil
}

// scratchDatabase makes a database on the user's server and points the path to it.
func (c *Config) scratchDatabase(ctx context.Context) (drop func() error, err error) {
	config, err := pgx.ParseConfig(c.Path.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	server := config.Copy()
	name := fmt.Sprintf("outbox_demo_%d", time.Now().UnixNano())
	c.Path.Slot = name
	if err := execOn(ctx, server, "CREATE DATABASE "+name); err != nil {
		return nil, fmt.Errorf("making database %s on your server: %w", name, err)
	}
	if c.Path.DatabaseURL, err = withDatabase(c.Path.DatabaseURL, name); err != nil {
		return nil, err
	}
	return func() error {
		// The relay has stopped, and its slot goes with the database, once the server has noticed.
		for patience := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := execOn(context.WithoutCancel(ctx), server, "DROP DATABASE "+name+" WITH (FORCE)")
			if err == nil {
				return nil
			}
			if time.Now().After(patience) {
				return fmt.Errorf("dropping database %s on your server: %w", name, err)
			}
		}
	}, nil
}

func execOn(ctx context.Context, server *pgx.ConnConfig, sql string) error {
	conn, err := pgx.ConnectConfig(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// arrivals collects what the bus accepted, in order.
type arrivals struct {
	mu     sync.Mutex
	byID   map[uuid.UUID]*arrived
	count  int
	latest time.Time
}

type arrived struct {
	place   int // 0 for the first event that ever arrived
	copies  int
	differs bool // a duplicate is not identical to the first
	first   local.Arrival
}

func (a *arrivals) add(arrival local.Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.latest = time.Now()
	id := arrival.EventID
	seen := a.byID[id]
	if seen == nil {
		seen = &arrived{place: a.count, first: arrival}
		a.byID[id] = seen
	}
	seen.copies++
	seen.differs = seen.differs || judge.EntryText(onBus(seen.first.Entry)) != judge.EntryText(onBus(arrival.Entry))
	a.count++
}

// settle returns when nothing has arrived for a second: five polls of the stream.
func (a *arrivals) settle() {
	for {
		a.mu.Lock()
		quiet := time.Since(a.latest)
		a.mu.Unlock()
		if quiet > time.Second {
			return
		}
		time.Sleep(time.Second - quiet)
	}
}

// wait returns when as many different events have arrived as were written, or nothing has come for a while: what is missing
// then, the judge says.
func (a *arrivals) wait(ctx context.Context, want int, failed <-chan error) error {
	started := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.New("demo: interrupted")
		case err := <-failed:
			return err
		case <-tick.C:
		}
		a.mu.Lock()
		have, latest := len(a.byID), a.latest
		a.mu.Unlock()
		if have >= want {
			return nil
		}
		if latest.Before(started) {
			latest = started
		}
		if time.Since(latest) > patience {
			return nil
		}
	}
}
