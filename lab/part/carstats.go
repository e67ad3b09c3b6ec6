package part

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/poller"
)

// CarStatsConfig says which queue the subscriber carstats empties and where its totals are.
type CarStatsConfig struct {
	AWS         aws.Config
	QueueURL    string
	DatabaseURL string
	// Timeout is the function's; a message that failed, or that a killed function had, comes again after it. Whole seconds.
	Timeout time.Duration
	Log     *slog.Logger
	// Concurrency is how many batches are under way at once, each with a connection of its own. Default 5, with which Lambda begins.
	Concurrency int
	// Watch stands between Lambda and the function. Nil: nothing does.
	Watch func(func(context.Context, events.SQSEvent) (events.SQSEventResponse, error)) func(context.Context, events.SQSEvent) (events.SQSEventResponse, error)
}

// CarStats polls the queue as Lambda does.
func CarStats(ctx context.Context, c CarStatsConfig) error {
	config, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		return fmt.Errorf("opening carstats' pool: %w", err)
	}
	pgsession.Fix(config.ConnConfig, "carstats", pgsession.Limits{})
	config.MaxConns = max(config.MaxConns, int32(c.Concurrency)) // the default is the machine's number of cores
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening carstats' pool: %w", err)
	}
	defer pool.Close()
	subscriber, err := carstats.New(carstats.Config{Pool: pool, Logger: c.Log})
	if err != nil {
		return err
	}
	function := subscriber.Handle
	if c.Watch != nil {
		function = c.Watch(function)
	}
	mapping, err := poller.NewQueue(poller.QueueConfig{
		SQS: sqs.NewFromConfig(c.AWS), QueueURL: c.QueueURL, Function: poller.Handler(function), Log: c.Log,
		FunctionTimeout: c.Timeout, VisibilityTimeout: c.Timeout, Concurrency: c.Concurrency,
	})
	if err != nil {
		return err
	}
	mapping.Run(ctx)
	return nil
}

// WithCarStats adds to a listener what infra/carstats.yml adds to a stage: a queue for carstats, a rule on the bus that fills it, and a
// failure queue (its name and -failures) for what was received so many times.
func WithCarStats(config awslocal.Config, bus, queue string, receives int) awslocal.Config {
	config.Queues = append(config.Queues, queue, queue+"-failures")
	config.Redrives = map[string]awslocal.Redrive{queue: {DeadLetterQueue: queue + "-failures", MaxReceiveCount: receives}}
	config.Rules = []awslocal.Rule{{
		Bus: bus, Source: "outbox.car", DetailTypes: []string{"CarCreated", "CarUpdated", "CarDeleted"}, Queue: queue,
	}}
	return config
}
