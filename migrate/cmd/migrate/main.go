// Command migrate brings the database of DATABASE_URL to the schema of sql/migrations.
//
//	migrate up           apply what is pending
//	migrate status       list the files and whether they are applied
//	migrate down-to N    take back every migration above version N; 0 takes back all
//	migrate partition    make outbox a table that is partitioned by day (docs/scaling.md)
//
// down-to deletes rows only with YES=1 in the environment.
//
// It prints one line per migration and last the version that the database is at. It exits with 0 when that is done, 1 when it
// failed, and 2 when it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/migrate"
)

const usage = `usage: migrate up | status | down-to N | partition
  up         apply what is pending
  status     list the files and whether they are applied
  down-to N  take back every migration above version N; 0 takes back all; YES=1 lets it delete rows
  partition  make outbox a table that is partitioned by day: docs/scaling.md says when
DATABASE_URL names the database: postgres://user:password@host:port/database
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv("DATABASE_URL"), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, databaseURL string, out, errs io.Writer) int {
	do, err := parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(errs, "migrate: %v\n%s", err, usage)
		return 2
	}
	if databaseURL == "" {
		_, _ = fmt.Fprintf(errs, "migrate: DATABASE_URL is not set\n%s", usage)
		return 2
	}
	conn, err := pgsession.ParseConfig(databaseURL)
	if err != nil {
		_, _ = fmt.Fprintf(errs, "migrate: DATABASE_URL: %v\n", err)
		return 2
	}
	if err := do(ctx, conn, out); err != nil {
		_, _ = fmt.Fprintf(errs, "migrate: %v\n", err)
		return 1
	}
	return 0
}

type action func(context.Context, *pgx.ConnConfig, io.Writer) error

func parse(args []string) (action, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("no command")
	}
	switch command, rest := args[0], args[1:]; {
	case command == "up" && len(rest) == 0:
		return up, nil
	case command == "status" && len(rest) == 0:
		return status, nil
	case command == "down-to" && len(rest) == 1:
		version, err := strconv.ParseInt(rest[0], 10, 64)
		if err != nil || version < 0 {
			return nil, fmt.Errorf("down-to %s: not a version, such as 3, or 0 for an empty database", rest[0])
		}
		return downTo(version, os.Getenv("YES") == "1"), nil
	case command == "partition" && len(rest) == 0:
		return partition, nil
	default:
		return nil, fmt.Errorf("not a command: %q", args)
	}
}

func up(ctx context.Context, conn *pgx.ConnConfig, out io.Writer) error {
	result, err := migrate.Up(ctx, conn, migrate.Options{})
	if err != nil {
		return err
	}
	printRan(out, "applied", result.Ran)
	_, err = fmt.Fprintf(out, "migrate: up to date at version %d\n", result.Version)
	return err
}

func downTo(version int64, dropRows bool) action {
	return func(ctx context.Context, conn *pgx.ConnConfig, out io.Writer) error {
		result, err := migrate.DownTo(ctx, conn, version, migrate.Options{DropRows: dropRows})
		var rows *migrate.RowsError
		if errors.As(err, &rows) {
			return fmt.Errorf("%w; with YES=1 it deletes them", err)
		}
		if err != nil {
			return err
		}
		printRan(out, "took back", result.Ran)
		_, err = fmt.Fprintf(out, "migrate: at version %d\n", result.Version)
		return err
	}
}

func partition(ctx context.Context, conn *pgx.ConnConfig, out io.Writer) error {
	done, err := migrate.Partition(ctx, conn, migrate.PartitionWidth, migrate.FirstPartition, migrate.Options{})
	if err != nil {
		return err
	}
	if done.First == "" {
		_, err = fmt.Fprintln(out, "migrate: outbox was partitioned already")
		return err
	}
	_, err = fmt.Fprintf(out, "migrate: outbox is partitioned by day from %s on; its rows until then are in %s\n", done.Until.UTC().Format(time.RFC3339), done.First)
	return err
}

func printRan(out io.Writer, verb string, ran []migrate.Migration) {
	for _, m := range ran {
		_, _ = fmt.Fprintf(out, "%s %s (%s)\n", verb, m.File, m.Duration.Round(100*time.Microsecond))
	}
}

func status(ctx context.Context, conn *pgx.ConnConfig, out io.Writer) error {
	files, version, err := migrate.Status(ctx, conn, migrate.Options{})
	if err != nil {
		return err
	}
	pending := 0
	for _, f := range files {
		state := "pending"
		if f.AppliedAt.IsZero() {
			pending++
		} else {
			state = f.AppliedAt.UTC().Format(time.DateTime) + " UTC"
		}
		_, _ = fmt.Fprintf(out, "%-23s  %s\n", state, f.File)
	}
	newest := files[len(files)-1].Version
	switch {
	case pending > 0:
		_, err = fmt.Fprintf(out, "migrate: at version %d, %d pending: run migrate up\n", version, pending)
	case version > newest:
		_, err = fmt.Fprintf(out, "migrate: at version %d, newer than these files (%d)\n", version, newest)
	default:
		_, err = fmt.Fprintf(out, "migrate: up to date at version %d\n", version)
	}
	return err
}
