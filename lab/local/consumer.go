package local

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/poller"
)

// ConsumerConfig says what the consumer (⑤⑥) reads and where its records go. All but Observe is required.
type ConsumerConfig struct {
	Services   Services
	Settings   ConsumerSettings
	Checkpoint string       // file of the poller
	Log        *slog.Logger `json:"-"`
	Observe    *Observer    `json:"-"`
	tracker    *tracker     // nil: nobody is told of arrivals
	// stored wakes the poller. It is nil when the stream wakes nobody, because it is another
	// process or external.
	stored func() <-chan struct{}
}

// Bus is EventBridge as the consumer calls it.
type Bus interface {
	PutEvents(context.Context, *eventbridge.PutEventsInput, ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error)
	DescribeEventBus(context.Context, *eventbridge.DescribeEventBusInput, ...func(*eventbridge.Options)) (*eventbridge.DescribeEventBusOutput, error)
}

// NewConsumer makes what the Lambda's main makes, with the given client of EventBridge.
func (c ConsumerConfig) NewConsumer(bus Bus) (*cdcconsumer.Consumer, error) {
	return cdcconsumer.New(cdcconsumer.Config{
		EventBridge: bus, SQS: watchedQueue{c.Services.SQS(), c.Observe}, BusName: c.Services.Bus, FailureQueueURL: c.Services.FailureQueueURL, Logger: c.Log,
		CallTimeout: c.Settings.CallTimeout,
	})
}

// run polls the stream as Lambda does.
func (c ConsumerConfig) run(ctx context.Context, _ net.Listener) error {
	client := c.Services.EventBridge()
	for err := cdcconsumer.CheckBus(ctx, client, c.Services.Bus); err != nil; err = cdcconsumer.CheckBus(ctx, client, c.Services.Bus) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
			c.Log.Warn("starting the consumer", "hop", 5, "error", err) // Lambda would start it again, too
		}
	}
	var bus Bus = client
	if c.tracker != nil {
		bus = watchedBus{client, c.tracker, c.Services.EventBridgeURL == c.Services.Local}
	}
	consumer, err := c.NewConsumer(bus)
	if err != nil {
		return err
	}
	function := handler(consumer.Handle)
	if c.tracker != nil {
		function = c.tracker.watch(function)
	}
	s := c.Settings
	config := poller.Config{
		Kinesis: c.Services.Kinesis(), Stream: c.Services.Stream, Function: poller.Handler(function), Log: c.Log,
		BatchSize: s.BatchSize, ParallelizationFactor: s.ParallelizationFactor, BisectOnError: s.BisectOnError,
		MaxRecordAge: s.MaxRecordAge, FunctionTimeout: s.Timeout, CheckpointFile: c.Checkpoint, Stored: c.stored,
	}
	if s.OnFailure {
		config.OnFailure, config.SQS = c.Services.DiscardQueueURL, c.Services.SQS()
	}
	mapping, err := poller.New(config)
	if err != nil {
		return err
	}
	return mapping.Run(ctx)
}
