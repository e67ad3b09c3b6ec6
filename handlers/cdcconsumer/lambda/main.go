// Command lambda runs the consumer (⑤⑥) as the Lambda function cdcConsumer.
//
// In: Kinesis events from the event source mapping. Out: entries on the bus EVENT_BUS_NAME, messages in the queue
// FAILURE_QUEUE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/sdkhttp"
)

func main() { os.Exit(run()) }

// A batch makes much short-lived memory over a small heap, so by default the collector runs many times in each. A quarter as many runs save
// a quarter of a batch's CPU. The limit makes the collector run more often when a batch is large, so that 256 MB are enough.
const (
	gcPercent   = 400
	memoryLimit = 192 << 20
)

func run() int {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	logger := lambdalog.New()
	consumer, err := newConsumer(context.Background(), logger)
	if err != nil {
		logger.Error("starting cdcConsumer", "error", err.Error())
		return 1
	}
	lambda.Start(consumer.Handle)
	return 0
}

func newConsumer(ctx context.Context, logger *slog.Logger) (*cdcconsumer.Consumer, error) {
	env, err := readEnvironment()
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithLogger(lambdalog.SDK(logger)))
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	cfg.HTTPClient = sdkhttp.Client(cfg.HTTPClient) // a call that is repeated for nothing is a duplicate on the bus
	bus := eventbridge.NewFromConfig(cfg)
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge:     bus,
		SQS:             sqs.NewFromConfig(cfg),
		BusName:         env.busName,
		FailureQueueURL: env.failureQueueURL,
		Logger:          logger,
		FunctionName:    os.Getenv("AWS_LAMBDA_FUNCTION_NAME"),
	})
	if err != nil {
		return nil, err
	}
	return consumer, cdcconsumer.CheckBus(ctx, bus, env.busName)
}

type environment struct {
	busName         string // EVENT_BUS_NAME
	failureQueueURL string // FAILURE_QUEUE_URL
}

// readEnvironment is the only place that reads it. AWS_* is the SDK's and Lambda's business.
func readEnvironment() (environment, error) {
	env := environment{busName: os.Getenv("EVENT_BUS_NAME"), failureQueueURL: os.Getenv("FAILURE_QUEUE_URL")}
	switch {
	case env.busName == "":
		return env, errors.New("EVENT_BUS_NAME is missing: set it to the name or the ARN of the event bus")
	case env.failureQueueURL == "":
		return env, errors.New("FAILURE_QUEUE_URL is missing: set it to the URL of the SQS queue for poison records")
	}
	return env, nil
}
