// Package demo is `make demo`. It sends cars through a throw-away path, waits until their events
// are on the bus, and judges every event against the tables and the API's answers, with package
// judge.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

const (
	// patience is how long nothing may arrive before the missing events count as lost.
	patience = 30 * time.Second
	// quiet is five polls of the stream, because duplicates come late.
	quiet = time.Second
)

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
	// On an external server the demo makes its own database, because it counts every row of outbox.
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
	var arrivals judge.Arrivals[local.Arrival]
	c.Path.Dir = dir
	c.Path.Log = slog.New(slog.NewMultiHandler(
		slog.NewJSONHandler(logFile, nil),
		slog.NewTextHandler(c.Progress, &slog.HandlerOptions{Level: slog.LevelWarn}),
	))
	c.Path.OnEvent = func(a local.Arrival) { arrivals.Add(a.EventID, a) }
	c.Path.Progress = func(what string) { fmt.Fprintf(c.Progress, "starting %s\n", what) }

	p, err := local.Start(ctx, c.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	start := time.Now()
	requests, err := write(ctx, p.APIURL, c.Cars)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Progress, "%s created and %d changed in %s, waiting for their events\n",
		plural.Of(c.Cars, "car"), len(requests)-c.Cars, time.Since(start).Round(time.Millisecond))
	if err := wait(ctx, &arrivals, len(requests), p.Failed()); err != nil {
		return err
	}
	report, err := check(ctx, p.DatabaseURL, requests, &arrivals)
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

// wait returns when the events have arrived and nothing has come after them for a while, or nothing has come for as long as patience.
// What is missing then, the judge says.
func wait(ctx context.Context, arrivals *judge.Arrivals[local.Arrival], events int, failed <-chan error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-ctx.Done():
		case err := <-failed:
			stop(err)
		}
	}()
	if arrivals.Wait(ctx, events, patience) == nil {
		arrivals.Settle(ctx, quiet)
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return errors.New("demo: interrupted")
	default:
		return cause
	}
}

// scratchDatabase makes a database on the user's server and points the stack to it.
func (c *Config) scratchDatabase(ctx context.Context) (drop func() error, err error) {
	config, err := pgsession.ParseConfig(c.Path.DatabaseURL)
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
		for patience := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
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
