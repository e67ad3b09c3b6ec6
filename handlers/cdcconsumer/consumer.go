// Package cdcconsumer is the Lambda on the stream (⑤). It publishes the events of a Kinesis batch on the EventBridge bus (⑥), in order
// per aggregate, and parks records that can never be published in the failure queue.
//
// In: batches of stream records, from DMS or walrelay. Out: bus entries, failure queue messages (ParkedRecord), and the
// sequence number from which Lambda has to deliver again.
package cdcconsumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"rds-outbox-demo/internal/congestion"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/outbox"
)

// Config of a Consumer. EventBridge, SQS, BusName, FailureQueueURL and Logger are required.
type Config struct {
	EventBridge eventBridge   // *eventbridge.Client
	SQS         messageSender // *sqs.Client
	// BusName is the name or the ARN of the bus.
	BusName string
	// FailureQueueURL is the SQS queue for records that can never be published. It must be a standard queue, because messages have no group.
	FailureQueueURL string
	Logger          *slog.Logger
	// FunctionName is the dimension of the metrics. Default cdcConsumer.
	FunctionName string
	// Lanes is how many PutEvents calls may be under way at once, while the bus is fast enough.
	// Default 10, which fills the SDK's idle connections. More lanes do not help a batch of few
	// aggregates, because an aggregate is never in two lanes.
	Lanes int
	// Margin is kept before the invocation's deadline for parking, and its last quarter for answering. Default 4 s, and never more
	// than half of the time left.
	Margin time.Duration
	// CallTimeout ends a PutEvents call that gets no answer. The call is then made again. Default 5
	// s. While the bus is slower than that, calls get more time, up to the rest of the invocation.
	CallTimeout time.Duration
}

type eventBridge interface {
	busDescriber
	PutEvents(context.Context, *eventbridge.PutEventsInput, ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error)
}

type messageSender interface {
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

// budget is the time for one batch when the context has no deadline. In Lambda it always has one.
const budget = 30 * time.Second

// maxInvocation is the longest invocation that Lambda offers. A call ends with its invocation
// anyway.
const maxInvocation = 15 * time.Minute

// busPattern is the service's own (botocore 1.43, events, NonPartnerEventBusNameOrArn). A name that does not match gets a
// ValidationException, as a bad event does. Every event of the stream would then count as poison.
var busPattern = regexp.MustCompile(`^(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus/)?[/.\-_A-Za-z0-9]+$`)

// Consumer publishes batches. Between batches it keeps how much the bus takes at once, and when the
// bus was last seen. It is safe for concurrent use.
type Consumer struct {
	config Config
	window *congestion.Window // in entries. It bounds each batch by itself.
	bus    busLook
	parse  func([]byte) (outbox.Record, outbox.Skip, error)
}

// New checks the configuration. An error names the wrong field.
func New(config Config) (*Consumer, error) {
	queue, err := url.Parse(config.FailureQueueURL)
	switch {
	case config.EventBridge == nil:
		return nil, errors.New("cdcconsumer: Config.EventBridge is missing: set it to an *eventbridge.Client")
	case config.SQS == nil:
		return nil, errors.New("cdcconsumer: Config.SQS is missing: set it to an *sqs.Client")
	case config.Logger == nil:
		return nil, errors.New("cdcconsumer: Config.Logger is missing")
	case !busPattern.MatchString(config.BusName):
		return nil, fmt.Errorf("cdcconsumer: Config.BusName is %q: set it to the name or the ARN of an event bus", config.BusName)
	case err != nil || queue.Scheme == "" || queue.Host == "":
		return nil, fmt.Errorf("cdcconsumer: Config.FailureQueueURL is %q: set it to the URL of an SQS queue", config.FailureQueueURL)
	case config.Lanes < 0 || config.Margin < 0 || config.CallTimeout < 0:
		return nil, fmt.Errorf("cdcconsumer: Config.Lanes %d, Margin %s and CallTimeout %s must not be negative",
			config.Lanes, config.Margin, config.CallTimeout)
	}
	config.FunctionName = cmp.Or(config.FunctionName, "cdcConsumer")
	config.Lanes = cmp.Or(config.Lanes, 10)
	config.Margin = cmp.Or(config.Margin, 4*time.Second)
	config.CallTimeout = cmp.Or(config.CallTimeout, 5*time.Second)
	// The caller has called CheckBus. If not, the first batch that comes after a minute looks.
	return &Consumer{config: config, window: newWindow(config), bus: busLook{seen: time.Now()}, parse: outbox.ParseRecord}, nil
}

func newWindow(config Config) *congestion.Window {
	return congestion.New(congestion.Limits{
		Unit: 1, Max: max(2, config.Lanes) * maxEntries, Call: maxEntries, Patience: config.CallTimeout, MaxPatience: maxInvocation,
	})
}

// Handle publishes one batch. Give it to lambda.Start. Its answer names the failed record that comes first in the batch. Lambda takes that
// record as its checkpoint and delivers it and all records after it again. An empty answer means success to Lambda, so Handle returns
// one only when each record was published, parked or skipped. The event source mapping needs FunctionResponseTypes
// ReportBatchItemFailures. Without it Lambda does not read the answer, and failed records are lost.
func (c *Consumer) Handle(ctx context.Context, event events.KinesisEvent) (response events.KinesisEventResponse, err error) {
	started := time.Now()
	defer func() {
		// The process lives on, and an error brings the whole batch back.
		if p := recover(); p != nil {
			response = events.KinesisEventResponse{}
			err = fmt.Errorf("handling a batch of %d records: %w", len(event.Records), c.panicked(ctx, p))
		}
	}()
	if len(event.Records) == 0 {
		return events.KinesisEventResponse{}, nil
	}
	items := newItems(event.Records)
	deadline, margin := c.deadline(ctx)
	c.publish(ctx, items, deadline.Add(-margin))
	c.lookForBus(ctx, items, deadline.Add(-margin/2))
	c.park(ctx, items, deadline.Add(-margin/4))
	c.logBatch(ctx, items, time.Since(started))
	failpoint.Hit(failpoint.ConsumerBeforeAnswer)
	if lowest := lowestFailed(items); lowest != nil {
		response.BatchItemFailures = []events.KinesisBatchItemFailure{{ItemIdentifier: lowest.record.Kinesis.SequenceNumber}}
	}
	return response, nil
}

// deadline returns when Lambda ends the invocation, and how much of the time before that publishing must leave.
func (c *Consumer) deadline(ctx context.Context) (deadline time.Time, margin time.Duration) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(budget)
	}
	return deadline, max(0, min(c.config.Margin, time.Until(deadline)/2))
}
