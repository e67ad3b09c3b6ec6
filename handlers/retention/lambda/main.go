// Command lambda runs retention as the Lambda function retention, on a schedule.
//
// In: any event, whose content is not read. Environment: RETENTION_ENABLED (true or false), RETENTION_DAYS, STREAM_RETENTION_HOURS,
// SLOT_NAME, and DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN and DB_SSL (package rdsdb). Out: what was deleted, as JSON and as one
// log line. If rows could not be deleted it ends with an error, which raises the function's alarm. Switched off it deletes only expired
// idempotency keys, and nothing of outbox. On or off it makes the next partitions of a partitioned outbox.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/internal/sdkhttp"
)

func main() { os.Exit(run()) }

func run() int {
	logger := lambdalog.New()
	f, err := newFunction(context.Background(), os.Getenv, logger)
	if err != nil {
		logger.Error("starting retention", "error", err.Error())
		return 1
	}
	lambda.Start(f.handle)
	return 0
}

type function struct {
	enabled  bool
	purger   *retention.Purger
	database rdsdb.Config
	secrets  *secretsmanager.Client
	logger   *slog.Logger
}

// newFunction checks all of the configuration, also while it is switched off, so that a mistake shows before it matters.
func newFunction(ctx context.Context, getenv func(string) string, logger *slog.Logger) (*function, error) {
	enabled, errEnabled := parse("RETENTION_ENABLED", getenv("RETENTION_ENABLED"), "true or false", strconv.ParseBool)
	days, errDays := parse("RETENTION_DAYS", getenv("RETENTION_DAYS"), "a number of days, such as 14", strconv.Atoi)
	hours, errHours := parse("STREAM_RETENTION_HOURS", getenv("STREAM_RETENTION_HOURS"), "the stream's retention, such as 168", strconv.Atoi)
	database, errDatabase := rdsdb.ConfigFromEnv(getenv)
	database.ApplicationName = "retention"
	if err := errors.Join(errEnabled, errDays, errHours, errDatabase); err != nil {
		return nil, err
	}
	purger, err := retention.New(retention.Config{
		Slot: getenv("SLOT_NAME"), Days: days, StreamRetention: time.Duration(hours) * time.Hour,
	})
	if err != nil {
		return nil, err
	}
	awsConfig, err := config.LoadDefaultConfig(ctx, config.WithLogger(lambdalog.SDK(logger)))
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	awsConfig.HTTPClient = sdkhttp.Client(awsConfig.HTTPClient)
	return &function{enabled, purger, database, secretsmanager.NewFromConfig(awsConfig), logger}, nil
}

func parse[T any](name, value, wanted string, as func(string) (T, error)) (T, error) {
	parsed, err := as(value)
	if err != nil {
		return parsed, fmt.Errorf("%s is %q: set it to %s", name, value, wanted)
	}
	return parsed, nil
}

type answer struct {
	Enabled bool  `json:"enabled"` // whether rows of outbox are deleted at all
	Keys    int64 `json:"keys"`    // idempotency keys that were deleted
	// Attached are partitions for rows to come, where outbox is partitioned.
	Attached int `json:"attached,omitempty"`
	retention.Result
}

func (f *function) handle(ctx context.Context) (answer, error) {
	done, err := f.purge(ctx)
	line := []slog.Attr{
		slog.Int("hop", 2), slog.Bool("enabled", done.Enabled), slog.Int64("keys", done.Keys), slog.Int64("deleted", done.Deleted),
		slog.Bool("left", done.Left),
	}
	if len(done.Dropped) > 0 || done.Attached > 0 {
		line = append(line, slog.Int("dropped", len(done.Dropped)), slog.Int("attached", done.Attached))
	}
	if done.OldestKept != nil {
		line = append(line, slog.Time("oldest_kept", *done.OldestKept))
	}
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelError, "retention", append(line, slog.String("error", err.Error()))...)
		return answer{}, err
	}
	message := "retention"
	if !done.Enabled {
		message = "retention is switched off: no row of outbox is deleted (RETENTION_ENABLED)"
	}
	f.logger.LogAttrs(ctx, slog.LevelInfo, message, line...)
	return done, nil
}

// purge opens a session each time, because between two runs Lambda freezes the function for an hour, and no session outlives that.
func (f *function) purge(ctx context.Context) (done answer, err error) {
	done.Enabled = f.enabled
	// Each statement reads or deletes few rows. What is left of us when Lambda ends us ends by itself on the server.
	connection, err := rdsdb.ConnConfig(ctx, f.database, f.secrets, pgsession.Limits{Statement: 30 * time.Second})
	if err != nil {
		return done, err
	}
	conn, err := pgx.ConnectConfig(ctx, connection)
	if err != nil {
		return done, fmt.Errorf("connecting to the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// A slot that is no proof must not keep the keys or the partitions to come, nor one of these the rows.
	var errAttach, errKeys error
	done.Attached, errAttach = retention.AttachPartitions(ctx, conn)
	done.Keys, errKeys = retention.PurgeKeys(ctx, conn)
	if f.enabled {
		done.Result, err = f.purger.Purge(ctx, conn)
	}
	return done, errors.Join(errAttach, errKeys, err)
}
