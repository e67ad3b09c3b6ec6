package poller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// QueueConfig of a QueuePoller. SQS, QueueURL, Function and Log are required.
type QueueConfig struct {
	SQS      *sqs.Client
	QueueURL string // of a standard queue
	// Function is invoked with the JSON of an events.SQSEvent, otherwise as Config.Function.
	Function func(ctx context.Context, payload []byte) ([]byte, error)
	Log      *slog.Logger

	// BatchSize is how many messages an invocation gets at most, 1 to 10. Default 10. (Lambda takes
	// more only with a window.)
	BatchSize int
	// Concurrency is how many batches are under way at once. Default 5, with which Lambda begins.
	Concurrency int
	// FunctionTimeout is the function's. The default is 5 s.
	FunctionTimeout time.Duration
	// VisibilityTimeout is the queue's. After it a message that failed comes again. Whole seconds,
	// not below FunctionTimeout, as Lambda demands. The default is six times FunctionTimeout, as
	// AWS advises.
	VisibilityTimeout time.Duration
}

// QueuePoller is Lambda's event source mapping for an SQS standard queue with FunctionResponseTypes
// ReportBatchItemFailures, as in the Lambda developer guide ("Handling errors for an SQS event
// source"). Messages that the answer names as failed are left alone until their visibility timeout
// is over. The others are deleted. The queue decides when a message came too often
// (awslocal.Redrive). There is one known difference. Lambda polls less after errors.
type QueuePoller struct {
	config    QueueConfig
	sourceARN string
}

// NewQueue checks the configuration. An error names the wrong field.
func NewQueue(c QueueConfig) (*QueuePoller, error) {
	c.BatchSize = cmp.Or(c.BatchSize, 10)
	c.Concurrency = cmp.Or(c.Concurrency, 5)
	c.FunctionTimeout = cmp.Or(c.FunctionTimeout, 5*time.Second)
	c.VisibilityTimeout = cmp.Or(c.VisibilityTimeout, 6*c.FunctionTimeout)
	queue, err := url.Parse(c.QueueURL)
	var path []string
	if err == nil {
		path = strings.Split(strings.Trim(queue.Path, "/"), "/")
	}
	switch {
	case c.SQS == nil:
		return nil, errors.New("poller: QueueConfig.SQS is missing: set it to a *sqs.Client")
	case len(path) != 2 || queue.Host == "":
		return nil, fmt.Errorf("poller: QueueConfig.QueueURL is %q: set it to the URL of an SQS queue", c.QueueURL)
	case c.Function == nil:
		return nil, errors.New("poller: QueueConfig.Function is missing")
	case c.Log == nil:
		return nil, errors.New("poller: QueueConfig.Log is missing")
	case c.BatchSize < 1 || c.BatchSize > 10:
		return nil, fmt.Errorf("poller: QueueConfig.BatchSize is %d: set it to 1..10", c.BatchSize)
	case c.Concurrency < 1:
		return nil, fmt.Errorf("poller: QueueConfig.Concurrency is %d: set it to 1 or more", c.Concurrency)
	case c.FunctionTimeout < 0 || c.FunctionTimeout > 15*time.Minute:
		return nil, fmt.Errorf("poller: QueueConfig.FunctionTimeout is %s: set it to at most 15m", c.FunctionTimeout)
	case c.VisibilityTimeout < c.FunctionTimeout || c.VisibilityTimeout%time.Second != 0:
		return nil, fmt.Errorf("poller: QueueConfig.VisibilityTimeout is %s: set it to whole seconds, not below FunctionTimeout (%s)",
			c.VisibilityTimeout, c.FunctionTimeout)
	}
	return &QueuePoller{c, "arn:aws:sqs:" + c.SQS.Options().Region + ":" + path[0] + ":" + path[1]}, nil
}

// Run polls until ctx ends. A queue that is away for a while is survived.
func (p *QueuePoller) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range p.config.Concurrency {
		workers.Go(func() { p.work(ctx) })
	}
	workers.Wait()
}

func (p *QueuePoller) work(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		out, err := p.config.SQS.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &p.config.QueueURL, MaxNumberOfMessages: int32(p.config.BatchSize), WaitTimeSeconds: 20,
			VisibilityTimeout:           int32(p.config.VisibilityTimeout / time.Second),
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.config.Log.WarnContext(ctx, "polling the queue", "hop", 6, "queue", p.config.QueueURL, "error", err.Error())
			if !wait(ctx, backoff(failures)) {
				return
			}
			failures++
			continue
		}
		failures = 0
		if len(out.Messages) > 0 {
			p.deliver(ctx, out.Messages)
		}
	}
}

// deliver invokes the function once and deletes what did not fail.
func (p *QueuePoller) deliver(ctx context.Context, messages []types.Message) {
	failed, err := p.invoke(ctx, messages)
	if err != nil {
		p.config.Log.WarnContext(ctx, "batch failed", "hop", 6, "queue", p.config.QueueURL, "messages", len(messages), "error", err.Error())
		return
	}
	// A poller that is told to end still deletes the finished messages. Otherwise they would come
	// again for nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for i, m := range messages {
		if slices.Contains(failed, i) {
			continue
		}
		if _, err := p.config.SQS.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &p.config.QueueURL, ReceiptHandle: m.ReceiptHandle}); err != nil {
			p.config.Log.WarnContext(ctx, "deleting a message that was processed: it comes again", "hop", 6, "error", err.Error())
		}
	}
}

// invoke returns the places of the messages that failed. An error means that all of them failed.
func (p *QueuePoller) invoke(ctx context.Context, messages []types.Message) (failed []int, err error) {
	payload, err := json.Marshal(p.event(messages))
	if err != nil {
		return nil, err
	}
	arn := strings.Replace(p.sourceARN, ":sqs:", ":lambda:", 1)
	answer, err := call(ctx, p.config.Function, payload, p.config.FunctionTimeout, arn[:strings.LastIndex(arn, ":")]+":function:local")
	if err != nil {
		return nil, err
	}
	return failedPlaces(answer, func(identifier string) int {
		return slices.IndexFunc(messages, func(m types.Message) bool { return *m.MessageId == identifier })
	})
}

// event leaves out the messages' own attributes, because EventBridge sends none.
func (p *QueuePoller) event(messages []types.Message) (e events.SQSEvent) {
	for _, m := range messages {
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: aws.ToString(m.MessageId), ReceiptHandle: aws.ToString(m.ReceiptHandle), Body: aws.ToString(m.Body), Md5OfBody: aws.ToString(m.MD5OfBody),
			Attributes: m.Attributes, MessageAttributes: map[string]events.SQSMessageAttribute{},
			EventSourceARN: p.sourceARN, EventSource: "aws:sqs", AWSRegion: p.config.SQS.Options().Region,
		})
	}
	return e
}
