// Command lambda runs carstats, a subscriber of the bus, as the Lambda function carStats.
//
// In: batches of its SQS queue from the event source mapping, and the environment variables DB_HOST, DB_PORT, DB_NAME, DB_USER,
// DB_SECRET_ARN and DB_SSL (package rdsdb). IN_ORDER, true or false, is optional. With it the function needs a schedule, too, and counts
// every version of a car in order. Out: totals in the database, and the messages that failed.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/internal/sdkhttp"
)

func main() { os.Exit(run()) }

func run() int {
	logger := lambdalog.New()
	subscriber, err := newSubscriber(context.Background(), os.Getenv, logger)
	if err != nil {
		logger.Error("starting carStats", "error", err.Error())
		return 1
	}
	lambda.Start(subscriber.Handle)
	return 0
}

// newSubscriber asks no other machine. The first batch does.
func newSubscriber(ctx context.Context, getenv func(string) string, logger *slog.Logger) (*carstats.Subscriber, error) {
	database, err := rdsdb.ConfigFromEnv(getenv)
	if err != nil {
		return nil, err
	}
	inOrder := getenv("IN_ORDER")
	if inOrder != "" && inOrder != "true" && inOrder != "false" {
		return nil, fmt.Errorf("IN_ORDER is %q: set it to true or false", inOrder)
	}
	database.ApplicationName = "carstats"
	awsConfig, err := config.LoadDefaultConfig(ctx, config.WithLogger(lambdalog.SDK(logger)))
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	awsConfig.HTTPClient = sdkhttp.Client(awsConfig.HTTPClient)
	pool, err := rdsdb.New(database, secretsmanager.NewFromConfig(awsConfig))
	if err != nil {
		return nil, err
	}
	return carstats.New(carstats.Config{Pool: pool, Logger: logger, FunctionName: getenv("AWS_LAMBDA_FUNCTION_NAME"), InOrder: inOrder == "true"})
}
