package cdcconsumer

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// services plays EventBridge and SQS for the real SDK clients, in the process and without a socket. So a test can run in a synctest bubble,
// where time passes only while everything waits. Each test scripts the answers.
type services struct {
	// put answers one PutEvents call. Returning an error is a connection that broke.
	put func(ctx context.Context, call int, entries []wireEntry) (answer, error)
	// send answers one SendMessage call. An answer without a code accepts.
	send func(ctx context.Context, call int) answer

	// describe answers a DescribeEventBus call. If it is nil the bus exists.
	describe func() answer

	mu     sync.Mutex
	looks  int // DescribeEventBus calls
	puts   int
	sends  int
	calls  [][]wireEntry  // entries of every PutEvents call
	rawPut []byte         // body of the last one
	parked []ParkedRecord // accepted by the queue
	bodies []string       // of parked
}

// wireEntry is an entry as it is sent.
type wireEntry struct {
	EventBusName, Source, DetailType, Detail, TraceHeader string
	Time                                                  float64
	Resources                                             []string
}

func (e wireEntry) detail() (d detail) {
	if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
		panic(err)
	}
	return d
}

// answer of a service. Status 0 is 200.
type answer struct {
	status int
	code   string // of an error
	body   any
}

// results makes an answer with one code per entry. The code "" accepts.
func results(codes ...string) answer {
	type entry struct{ EventId, ErrorCode, ErrorMessage string }
	entries, n := []entry{}, 0
	for _, code := range codes {
		if code == "" {
			entries = append(entries, entry{EventId: uuid.NewString()})
		} else {
			entries = append(entries, entry{ErrorCode: code, ErrorMessage: "scripted"})
			n++
		}
	}
	return answer{body: map[string]any{"Entries": entries, "FailedEntryCount": n}}
}

func acceptAll(entries []wireEntry) answer { return results(make([]string, len(entries))...) }

// Do makes services the HTTP client of the SDK.
func (s *services) Do(r *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var reply answer
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "AWSEvents.PutEvents":
		reply, err = s.putEvents(r.Context(), raw)
	case "AWSEvents.DescribeEventBus":
		s.mu.Lock()
		s.looks++
		s.mu.Unlock()
		if s.describe != nil {
			reply = s.describe()
		}
	case "AmazonSQS.SendMessage":
		reply, err = s.sendMessage(r.Context(), raw)
	default:
		panic("unexpected call: " + target)
	}
	if err != nil {
		return nil, err
	}
	response := &http.Response{StatusCode: max(reply.status, 200), Header: http.Header{}, Request: r}
	payload := []byte{}
	if reply.code != "" {
		payload = fmt.Appendf(nil, `{"__type":%q,"message":"scripted"}`, reply.code)
	} else if reply.body != nil {
		if payload, err = json.Marshal(reply.body); err != nil {
			return nil, err
		}
	}
	response.Body = io.NopCloser(bytes.NewReader(payload))
	return response, nil
}

func (s *services) putEvents(ctx context.Context, raw []byte) (answer, error) {
	var request struct{ Entries []wireEntry }
	if err := json.Unmarshal(raw, &request); err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	s.puts++
	call := s.puts
	s.calls = append(s.calls, request.Entries)
	s.rawPut = raw
	s.mu.Unlock()
	if s.put == nil {
		return acceptAll(request.Entries), nil
	}
	return s.put(ctx, call, request.Entries)
}

func (s *services) sendMessage(ctx context.Context, raw []byte) (answer, error) {
	var request struct{ QueueUrl, MessageBody string }
	if err := json.Unmarshal(raw, &request); err != nil {
		return answer{}, err
	}
	s.sends++ // needs no lock, because the consumer parks one record after the other
	if s.send != nil {
		if reply := s.send(ctx, s.sends); reply.code != "" || ctx.Err() != nil {
			return reply, ctx.Err()
		}
	}
	var parked ParkedRecord
	if err := json.Unmarshal([]byte(request.MessageBody), &parked); err != nil {
		return answer{}, err
	}
	s.parked = append(s.parked, parked)
	s.bodies = append(s.bodies, request.MessageBody)
	sum := md5.Sum([]byte(request.MessageBody))
	return answer{body: map[string]string{"MessageId": uuid.NewString(), "MD5OfMessageBody": hex.EncodeToString(sum[:])}}, nil
}

// sent lists the versions of one aggregate in the order of the calls, once per call that carried them.
func (s *services) sent(aggregateID string) (versions []int64) {
	for _, call := range s.calls {
		for _, e := range call {
			if d := e.detail(); d.AggregateID == aggregateID {
				versions = append(versions, d.AggregateVersion)
			}
		}
	}
	return versions
}

func (s *services) clients() (*eventbridge.Client, *sqs.Client) {
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "local", SecretAccessKey: "local"}, nil
	})
	return eventbridge.New(eventbridge.Options{Region: "eu-west-1", Credentials: credentials, HTTPClient: s}),
		sqs.New(sqs.Options{Region: "eu-west-1", Credentials: credentials, HTTPClient: s})
}

// bundle is a consumer with everything around it.
type bundle struct {
	*services
	consumer *Consumer
	log      *bytes.Buffer
}

// newBundle makes a consumer that has seen the bus answer at once, so that its window is open. cold
// makes one that has seen no answer.
func newBundle(t require.TestingT, config Config) *bundle {
	b := &bundle{services: &services{}, log: &bytes.Buffer{}}
	config.EventBridge, config.SQS = b.clients()
	config.BusName = "OutboxEventBus"
	config.FailureQueueURL = "https://sqs.eu-west-1.amazonaws.com/000000000000/failures"
	config.Logger = slog.New(slog.NewJSONHandler(b.log, nil))
	consumer, err := New(config)
	require.NoError(t, err)
	b.consumer = consumer
	for b.consumer.window.Call() < maxEntries || b.consumer.window.Size() < b.consumer.config.Lanes*maxEntries {
		b.consumer.window.Answered(b.consumer.window.Size(), b.consumer.window.Size(), time.Millisecond)
	}
	return b
}

func (b *bundle) cold() { b.consumer.window = newWindow(b.consumer.config) }

// inBubble runs the test where time passes only while everything waits. Backoffs, timeouts and deadlines are exact and take no time.
func inBubble(t *testing.T, config Config, test func(*testing.T, *bundle)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newBundle(t, config)) })
}

// handle runs one invocation and returns the place of the record in the answer, -1 for an empty answer.
func (b *bundle) handle(t require.TestingT, timeout time.Duration, batch events.KinesisEvent) int {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := b.consumer.Handle(ctx, batch)
	require.NoError(t, err)
	require.NoError(t, ctx.Err(), "answered after the deadline")
	if len(response.BatchItemFailures) == 0 {
		return -1
	}
	require.Len(t, response.BatchItemFailures, 1)
	place := slices.IndexFunc(batch.Records, func(r events.KinesisEventRecord) bool {
		return r.Kinesis.SequenceNumber == response.BatchItemFailures[0].ItemIdentifier
	})
	require.GreaterOrEqual(t, place, 0, "the answer names no record of the batch")
	return place
}

// batchLine is the batch's log line.
func (b *bundle) batchLine(t require.TestingT) map[string]any {
	for line := range strings.Lines(b.log.String()) {
		var attributes map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &attributes))
		if attributes["msg"] == "batch" {
			return attributes
		}
	}
	require.Fail(t, "no batch line in the log")
	return nil
}

// batch makes a Kinesis event of raw records, all of shard 6.
func batch(records ...[]byte) (event events.KinesisEvent) {
	for i, data := range records {
		sequence := fmt.Sprintf("4959%052d", i)
		event.Records = append(event.Records, events.KinesisEventRecord{
			EventID:        "shardId-000000000006:" + sequence,
			EventSourceArn: "arn:aws:kinesis:eu-west-1:000000000000:stream/outbox",
			Kinesis: events.KinesisRecord{
				Data: data, SequenceNumber: sequence, PartitionKey: "key-" + fmt.Sprint(i),
				ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: time.Unix(1763889300, 0)},
			},
		})
	}
	return event
}

func row(aggregateID string, version int64) dbgen.Outbox {
	return dbgen.Outbox{
		ID:            uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%d", aggregateID, version)),
		AggregateType: "Car", AggregateID: aggregateID, AggregateVersion: version, EventType: "CarUpdated",
		EventData: json.RawMessage(`{"make": "Volvo"}`), CreatedAt: time.Date(2026, 11, 23, 9, 15, 0, 123456000, time.UTC),
	}
}

func record(row dbgen.Outbox) []byte {
	data, err := outbox.Record{Row: row, Operation: outbox.OperationInsert, Timestamp: row.CreatedAt}.AppendJSON(nil)
	if err != nil {
		panic(err)
	}
	return data
}

func car(aggregateID string, version int64) []byte { return record(row(aggregateID, version)) }

var control = []byte(`{"metadata":{"record-type":"control","operation":"create-table","schema-name":"public","table-name":"outbox"}}`)

// wait returns false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
