// Command lambda runs canary as the Lambda function canary, on a schedule.
//
// In: any event; what it says is not read. Environment: DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN and DB_SSL (package rdsdb).
// Out: the id of the event that was committed, as JSON and in one log line; an error when none was.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"rds-outbox-demo/handlers/canary"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/internal/sdkhttp"
)

func main() { os.Exit(run()) }

func run() int {
	logger := lambdalog.New()
	f, err := newFunction(context.Background(), os.Getenv, logger)
	if err != nil {
		logger.Error("starting canary", "error", err.Error())
		return 1
	}
	lambda.Start(f.handle)
	return 0
}

type function struct {
	pool   *rdsdb.Pool
	logger *slog.Logger
}

// newFunction asks no other machine: the first beat does.
func newFunction(ctx context.Context, getenv func(string) string, logger *slog.Logger) (*function, error) {
	database, err := rdsdb.ConfigFromEnv(getenv)
	if err != nil {
		return nil, err
	}
	database.ApplicationName = "canary"
	awsConfig, err := config.LoadDefaultConfig(ctx, config.WithLogger(lambdalog.SDK(logger)))
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	awsConfig.HTTPClient = sdkhttp.Client(awsConfig.HTTPClient)
	pool, err := rdsdb.New(database, secretsmanager.NewFromConfig(awsConfig))
	if err != nil {
		return nil, err
	}
	return &function{pool, logger}, nil
}

type answer struct {
	EventID string `json:"eventId"`
}

func (f *function) handle(ctx context.Context) (answer, error) {
	done, err := f.beat(ctx)
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelError, "canary", slog.Int("hop", 2), slog.String("error", err.Error()))
		return answer{}, err
	}
	f.logger.LogAttrs(ctx, slog.LevelInfo, "canary", slog.Int("hop", 2), slog.String("event_id", done.EventID))
	return done, nil
}

func (f *function) beat(ctx context.Context) (answer, error) {
	conn, err := f.pool.Acquire(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	id, err := canary.Beat(ctx, conn, time.Now())
	if err != nil {
		return answer{}, err
	}
	return answer{id.String()}, nil
}
