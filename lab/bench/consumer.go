package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// lanes is the consumer's default. The other side of a comparison gets as many connections.
const lanes = 10

// consumer publishes batches (⑤⑥) as the Lambda does, with the SDK's client over HTTP. Beside it, over as many connections, a bare HTTP
// client that sends the very bodies of its calls, unsigned, and looks at nothing; and the SDK's client with the same entries, which is what
// can be had without doing what it does once more by hand.
func consumer(ctx context.Context, e *environment) (rows []Row, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as its main
	const bare, sdk = "bare HTTP client", "SDK's client"
	for _, test := range []struct {
		what       string
		delay      time.Duration
		aggregates int
	}{
		{"1,000 records of 10 aggregates, bus at once", 0, 10},
		{"1,000 records of 1,000 aggregates, bus at once", 0, 1000},
		{"1,000 records of 1,000 aggregates, 10 ms a call", 10 * time.Millisecond, 1000},
	} {
		values, err := e.besideClients(ctx, test.delay, batchOf(1000, test.aggregates))
		if err != nil {
			return nil, err
		}
		row := Row{What: test.what, Unit: "events/s", Ours: values[0], Limit: values[1], LimitName: bare}
		same := Row{What: "the same", Unit: "events/s", Ours: values[0], Limit: values[2], LimitName: sdk}
		if test.aggregates == 1000 {
			row = row.atLeast(0.85)
			same = same.bounded(0.15)
		}
		rows = append(rows, row, same)
		if test.delay > 0 {
			original := Row{What: "the same", Unit: "events/s", Ours: values[0], Limit: values[3], LimitName: standIn}
			rows = append(rows, original.atLeast(8).bounded(4))
		}
	}
	return rows, nil
}

// besideClients runs the batch through the consumer, and its calls through a bare client and the SDK's: events/s of each. With a delay, it
// runs the batch through the stand-in for the original, too.
func (e *environment) besideClients(ctx context.Context, delay time.Duration, batch events.KinesisEvent) ([]Values, error) {
	bus, err := sink.Start(delay)
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	recorded, err := record(ctx, bus, batch)
	if err != nil {
		return nil, err
	}
	sdk := eventbridge.NewFromConfig(awslocal.SDKConfig(bus.URL))
	consumer, err := newConsumer(bus, sdk)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: lanes}}
	defer client.CloseIdleConnections()
	repeats := e.size(100) // a batch takes 10 ms: too short for a round
	if delay > 0 {
		repeats = e.size(20)
	}
	measurements := []measurement{
		rateOf(repeats, len(batch.Records), func(ctx context.Context) error { return publish(ctx, consumer, batch) }),
		rateOf(repeats, len(batch.Records), func(ctx context.Context) error {
			return inLanes(ctx, recorded.bodies, func(ctx context.Context, body []byte) error { return sendCall(ctx, client, bus.URL, body) })
		}),
		rateOf(repeats, len(batch.Records), func(ctx context.Context) error {
			return inLanes(ctx, recorded.calls, func(ctx context.Context, call *eventbridge.PutEventsInput) error {
				_, err := sdk.PutEvents(ctx, call)
				return err
			})
		}),
	}
	if delay > 0 {
		measurements = append(measurements, e.originalConsumer(bus.URL, batch, max(1, repeats/10)))
	}
	return e.alternate(ctx, measurements...)
}

// recorder keeps the calls that the consumer makes, and the bodies that the SDK makes of them.
type recorder struct {
	*eventbridge.Client
	http   aws.HTTPClient
	mu     sync.Mutex
	calls  []*eventbridge.PutEventsInput
	bodies [][]byte
}

// record returns what the consumer sends to publish the batch.
func record(ctx context.Context, bus *sink.Server, batch events.KinesisEvent) (*recorder, error) {
	config := awslocal.SDKConfig(bus.URL)
	r := &recorder{http: config.HTTPClient}
	config.HTTPClient = r
	r.Client = eventbridge.NewFromConfig(config)
	consumer, err := newConsumer(bus, r)
	if err != nil {
		return nil, err
	}
	// The first batches open the consumer's window. A consumer that knows nothing of the bus yet
	// sends small calls.
	for range 21 {
		r.calls, r.bodies = nil, nil
		if err := publish(ctx, consumer, batch); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *recorder) PutEvents(ctx context.Context, in *eventbridge.PutEventsInput, options ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	r.mu.Lock()
	r.calls = append(r.calls, in)
	r.mu.Unlock()
	return r.Client.PutEvents(ctx, in, options...)
}

// Do makes the recorder the HTTP client of the SDK.
func (r *recorder) Do(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	r.mu.Lock()
	r.bodies = append(r.bodies, body)
	r.mu.Unlock()
	return r.http.Do(request)
}

func publish(ctx context.Context, consumer *cdcconsumer.Consumer, batch events.KinesisEvent) error {
	answer, err := consumer.Handle(ctx, batch)
	if err == nil && len(answer.BatchItemFailures) > 0 {
		err = fmt.Errorf("the consumer published up to %s only", answer.BatchItemFailures[0].ItemIdentifier)
	}
	return err
}

// rateOf measures operations a second of do, which does that many operations and is repeated.
func rateOf(repeats, operations int, do func(context.Context) error) measurement {
	return func(ctx context.Context) (float64, error) {
		started := time.Now()
		for range repeats {
			if err := do(ctx); err != nil {
				return 0, err
			}
		}
		return float64(repeats*operations) / time.Since(started).Seconds(), nil
	}
}

// inLanes makes the calls, as many at a time as the consumer has lanes.
func inLanes[T any](ctx context.Context, calls []T, do func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lanes)
	for _, call := range calls {
		group.Go(func() error { return do(ctx, call) })
	}
	return group.Wait()
}

func sendCall(ctx context.Context, client *http.Client, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", sink.PutEvents)
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("sending a call: %w", err)
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// newConsumer makes the consumer as the Lambda's main does, but with the sink instead of
// EventBridge, and with a log that is written and thrown away.
func newConsumer(bus *sink.Server, client local.Bus) (*cdcconsumer.Consumer, error) {
	return local.ConsumerConfig{
		Services: local.Services{Region: awslocal.Region, AccessKeyID: "local", SecretKey: "local", SQSURL: bus.URL, Bus: "bench", FailureQueueURL: bus.URL + "/failures"},
		Log:      slog.New(slog.NewJSONHandler(io.Discard, nil)),
	}.NewConsumer(client)
}

// batchOf makes a batch of events of the aggregates in turn. Each event has what the API writes,
// 0.9 KB on the stream.
func batchOf(records, aggregates int) (batch events.KinesisEvent) {
	at := time.Now().UTC()
	for i := range records {
		id := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i%aggregates)).String()
		trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		record := outbox.Record{
			Row: dbgen.Outbox{
				ID: uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, i)), AggregateType: domain.AggregateType, AggregateID: id,
				AggregateVersion: int64(i/aggregates + 1), EventType: domain.Updated, Traceparent: &trace, CreatedAt: at,
				EventData: fmt.Appendf(nil, `{"make": "Toyota", "year": 2023, "carId": "%s", "color": null, "model": "Camry", "createdAt": "%s"}`, id, outbox.FormatTime(at)),
			},
			Operation: outbox.OperationInsert, Timestamp: at,
			Commit: outbox.Commit{Time: at, TransactionID: 4711, Sequence: 1, StreamPosition: "0/1A2B3C4"},
		}
		data, err := record.AppendJSON(nil)
		if err != nil {
			panic(err) // ours
		}
		sequence := fmt.Sprintf("4959%052d", i)
		batch.Records = append(batch.Records, events.KinesisEventRecord{
			EventID: "shardId-000000000000:" + sequence, EventName: "aws:kinesis:record", EventSource: "aws:kinesis", EventVersion: "1.0",
			EventSourceArn: "arn:aws:kinesis:us-east-1:000000000000:stream/bench", AwsRegion: "us-east-1",
			Kinesis: events.KinesisRecord{
				Data: data, PartitionKey: id, SequenceNumber: sequence, KinesisSchemaVersion: "1.0",
				ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: at},
			},
		})
	}
	return batch
}
