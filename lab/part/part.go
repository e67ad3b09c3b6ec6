// Package part has the parts of the path that are not programs of their own, each as one: the API, the consumer behind its poller,
// and the AWS listener. `make chaos` runs them as processes, because only a process can be killed.
//
// In: a listening socket and addresses. Out: the part runs until its context ends.
package part

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/poller"
)

// API serves the car API (①②).
func API(ctx context.Context, listener net.Listener, databaseURL string, log *slog.Logger) error {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return fmt.Errorf("opening the API's pool: %w", err)
	}
	pgsession.Fix(config.ConnConfig, "carapi", pgsession.Limits{})
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening the API's pool: %w", err)
	}
	defer pool.Close()
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: log})
	if err != nil {
		return err
	}
	return serve(ctx, carapi.NewServer(handler), listener)
}

// ConsumerConfig says what the consumer (⑤⑥) reads and where its records go.
type ConsumerConfig struct {
	AWS             aws.Config
	Stream          string
	Bus             string
	FailureQueueURL string
	Checkpoint      string // file
	// Timeout is the function's. Short: what a function that runs into it leaves behind is to be seen often.
	Timeout time.Duration
	Log     *slog.Logger
}

// Consumer polls the stream as Lambda does, with the settings of serverless.yml.
func Consumer(ctx context.Context, c ConsumerConfig) error {
	bus := eventbridge.NewFromConfig(c.AWS)
	for err := cdcconsumer.CheckBus(ctx, bus, c.Bus); err != nil; err = cdcconsumer.CheckBus(ctx, bus, c.Bus) {
		c.Log.Warn("starting the consumer", "hop", 5, "error", err) // Lambda would start it again, too
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge: bus, SQS: sqs.NewFromConfig(c.AWS), BusName: c.Bus, FailureQueueURL: c.FailureQueueURL, Logger: c.Log,
	})
	if err != nil {
		return err
	}
	mapping, err := poller.New(poller.Config{
		Kinesis:               kinesis.NewFromConfig(c.AWS),
		Stream:                c.Stream,
		Function:              poller.Handler(consumer.Handle),
		Log:                   c.Log,
		ParallelizationFactor: 2,
		BisectOnError:         true,
		FunctionTimeout:       c.Timeout,
		CheckpointFile:        c.Checkpoint,
	})
	if err != nil {
		return err
	}
	return mapping.Run(ctx)
}

// AWS serves the AWS listener, and its faults below FaultPath.
func AWS(ctx context.Context, listener net.Listener, config awslocal.Config, standing []awslocal.Fault) error {
	server, err := awslocal.Open(config)
	if err != nil {
		return err
	}
	for _, fault := range standing {
		if err := fault.Validate(); err != nil {
			return errors.Join(err, server.Close())
		}
		server.Faults().Add(fault)
	}
	mux := http.NewServeMux()
	mux.Handle("/", server)
	mux.Handle(FaultPath, faultHandler(server.Faults()))
	// No limits on time but this: the listener has to hold calls for as long as a fault says.
	err = serve(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, listener)
	return errors.Join(err, server.Close())
}

// serve serves until ctx ends.
func serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
