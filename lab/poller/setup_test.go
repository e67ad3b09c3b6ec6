package poller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

// world is the local AWS listener behind the real SDK clients, in the process. It has no socket, so
// that a test can run in a synctest bubble, where time passes only when everything waits, and
// polls, windows and backoffs cost nothing.
type world struct {
	t       *testing.T
	conf    awslocal.Config
	server  *awslocal.Server // nil while it is away
	sdk     aws.Config
	kinesis *kinesis.Client
	sqs     *sqs.Client
	// change, if set, may change the body of an answer.
	change func(operation string, body []byte) []byte

	config     Config // of the pollers to come
	mu         sync.Mutex
	deliveries []delivery
}

// delivery is one invocation.
type delivery struct {
	at      time.Time
	records []string // "key/data"
	event   events.KinesisEvent
}

// inBubble runs a test with a stream of two shards, "lower" and "upper" being keys of them.
func inBubble(t *testing.T, config Config, test func(*testing.T, *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, config, awslocal.Config{})) })
}

const (
	lower = "a" // a key of shard 0 and one of shard 1
	upper = "b"
)

func newWorld(t *testing.T, config Config, conf awslocal.Config) *world {
	conf.Dir = t.TempDir()
	conf.Streams = []awslocal.Stream{{Name: "outbox", Shards: 2}}
	conf.Queues = append(conf.Queues, "discarded")
	conf.Buses = []string{"bus"}
	w := &world{t: t, conf: conf, config: config}
	w.open()
	t.Cleanup(func() { w.close() })
	w.sdk = awslocal.SDKConfig("http://127.0.0.1:1")
	w.sdk.HTTPClient = w
	w.kinesis, w.sqs = kinesis.NewFromConfig(w.sdk), sqs.NewFromConfig(w.sdk)
	w.config.Kinesis, w.config.SQS, w.config.Stream = w.kinesis, w.sqs, "outbox"
	w.config.Log = slog.New(slog.DiscardHandler)
	w.config.CheckpointFile = filepath.Join(conf.Dir, "checkpoints.json")
	return w
}

func (w *world) open() {
	server, err := awslocal.Open(w.conf)
	require.NoError(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = server
}

func (w *world) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.server != nil {
		require.NoError(w.t, w.server.Close())
	}
	w.server = nil
}

// Do makes the world the SDK's HTTP client.
func (w *world) Do(r *http.Request) (response *http.Response, err error) {
	w.mu.Lock()
	server := w.server
	w.mu.Unlock()
	if server == nil {
		return nil, errors.New("connection refused")
	}
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler
			err = errors.New("connection reset by peer")
		}
	}()
	recorder := httptest.NewRecorder()
	request := r.Clone(r.Context())
	request.Host = r.URL.Host
	server.ServeHTTP(recorder, request)
	response = recorder.Result()
	if w.change != nil {
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return nil, err
		}
		response.Body = io.NopCloser(bytes.NewReader(w.change(r.Header.Get("X-Amz-Target"), body)))
		response.ContentLength = -1
	}
	return response, nil
}

// put writes records with one key. A record's data is its number.
func (w *world) put(key string, numbers ...int) {
	for _, n := range numbers {
		_, err := w.kinesis.PutRecord(context.Background(), &kinesis.PutRecordInput{
			StreamName: aws.String("outbox"), PartitionKey: &key, Data: fmt.Append(nil, n),
		})
		require.NoError(w.t, err)
	}
}

// function makes a Function that records its invocations and returns judge's result, which is the
// answer or an error.
func (w *world) function(judge func(invocation int, d delivery) (string, error)) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, payload []byte) ([]byte, error) {
		d := delivery{at: time.Now()}
		if err := json.Unmarshal(payload, &d.event); err != nil {
			return nil, err
		}
		for _, r := range d.event.Records {
			d.records = append(d.records, r.Kinesis.PartitionKey+"/"+string(r.Kinesis.Data))
		}
		w.mu.Lock()
		w.deliveries = append(w.deliveries, d)
		n := len(w.deliveries)
		w.mu.Unlock()
		answer, err := judge(n, d)
		return []byte(answer), err
	}
}

func succeed(int, delivery) (string, error) { return "", nil }

// failing names the record at a place of the batch.
func (d delivery) failing(places ...int) string {
	response := events.KinesisEventResponse{}
	for _, place := range places {
		response.BatchItemFailures = append(response.BatchItemFailures,
			events.KinesisBatchItemFailure{ItemIdentifier: d.event.Records[place].Kinesis.SequenceNumber})
	}
	answer, err := json.Marshal(response)
	if err != nil {
		panic(err)
	}
	return string(answer)
}

// run runs a poller for a time of the bubble, and returns what was delivered meanwhile.
func (w *world) run(judge func(int, delivery) (string, error), d time.Duration) (batches [][]string) {
	w.t.Helper()
	w.mu.Lock()
	w.deliveries = nil
	w.mu.Unlock()
	config := w.config
	config.Function = w.function(judge)
	poller, err := New(config)
	require.NoError(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	require.NoError(w.t, poller.Run(ctx))
	for _, d := range w.deliveries {
		batches = append(batches, d.records)
	}
	return batches
}

// numbered are the records of put.
func numbered(key string, from, to int) (records []string) {
	for n := from; n <= to; n++ {
		records = append(records, fmt.Sprintf("%s/%d", key, n))
	}
	return records
}

func count(from, to int) (numbers []int) {
	for n := from; n <= to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

// discarded reads the on-failure queue.
func (w *world) discarded() (messages []string) {
	out, err := w.sqs.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(queueURL), MaxNumberOfMessages: 10})
	require.NoError(w.t, err)
	for _, m := range out.Messages {
		messages = append(messages, *m.Body)
	}
	return messages
}

const queueURL = "http://127.0.0.1:1/000000000000/discarded"

func (w *world) putData(key, data string) {
	_, err := w.kinesis.PutRecord(context.Background(), &kinesis.PutRecordInput{
		StreamName: aws.String("outbox"), PartitionKey: &key, Data: []byte(data),
	})
	require.NoError(w.t, err)
}

// runConfig runs a poller with the world's own function.
func (w *world) runConfig(d time.Duration) {
	poller, err := New(w.config)
	require.NoError(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	require.NoError(w.t, poller.Run(ctx))
}

func sqsDown() awslocal.Fault {
	return awslocal.Fault{Service: "sqs", Kind: awslocal.CallError, Status: 500}
}
