package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/poller"
	"rds-outbox-demo/walrelay"
)

const (
	recordFolder   = "record-format"
	recordCar      = "0199fa3c-7b5e-7a01-9c3d-5e6f70819203"
	recordEvent    = "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"
	recordDelivery = "6a7e8feb-b491-4cf7-a9f1-bf3703467718" // the id that EventBridge gives an accepted entry
	recordSequence = "49664459213214506049272029928136046394554240732946759682"
)

const recordRequest = `POST %s HTTP/1.1
Host: localhost
Content-Type: application/json
Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
Idempotency-Key: 6f3c0c5c-6a4e-4a6b-9f0a-0d7c7a0f6a11
Content-Length: %d

%s`

// TestRecordFormat sends the request of record-format/1-request.http down the whole path and compares what comes by at each hop with the
// files of record-format, which docs/record-format.md excerpts. Ids, times and numbers that differ from run to run are replaced by fixed
// ones. UPDATE_GOLDEN=1 writes the files anew.
func TestRecordFormat(t *testing.T) {
	t.Parallel()
	r := newRecordRun(t)
	answer := r.request(t)
	payload := r.invocation(t)
	r.publish(t, payload)
	r.park(t, payload)
	r.discard(t)

	r.compare(t, "1-answer.http", answer)
	r.compare(t, "2-row.json", r.row(t))
	r.compare(t, "3-pgoutput.txt", r.pgoutput(t))
	r.compare(t, "4-walrelay.json", payload.Records[0].Kinesis.Data)
	r.compare(t, "5-invocation.json", r.sameData(t, payload))
	r.compare(t, "6-entry.json", r.entry())
	message := r.subscriber(t)
	r.compare(t, "6-target.json", []byte(message.Records[0].Body))
	r.compare(t, "6-subscriber.json", recordJSON(t, message))
	r.compare(t, "5-parked.json", r.sameData(t, r.message(t, "failures")))
	r.compare(t, "5-discarded.json", r.message(t, "discards"))
	r.compare(t, "log-lines.json", r.logLines(t))
}

// TestRecordFormatOfDMS: the DMS record is a captured one, in a readable form.
func TestRecordFormatOfDMS(t *testing.T) {
	t.Parallel()
	shown, err := os.ReadFile(filepath.Join(recordFolder, "4-dms.json"))
	require.NoError(t, err)
	var line bytes.Buffer
	require.NoError(t, json.Compact(&line, shown))
	captured, err := os.ReadFile("../outbox/testdata/dms-postgres-capture.ndjson")
	require.NoError(t, err)
	require.Contains(t, strings.Split(string(captured), "\n"), line.String())
}

type recordRun struct {
	db     *pgtest.DB
	api    http.Handler
	server *awslocal.Server
	config aws.Config
	log    recordLog
	wire   recordWire
	id     string // the car's
	event  string // the event's
}

func newRecordRun(t *testing.T) *recordRun {
	r := &recordRun{db: pgtest.New(t)}
	r.server, r.config = awstest.Start(t, awslocal.Config{
		Streams: []awslocal.Stream{{Name: "outbox", Shards: 1}},
		Buses:   []string{"outbox"},
		Queues:  []string{"subscriber", "failures", "discards"},
		Rules:   []awslocal.Rule{{Bus: "outbox", Source: "outbox.car", Queue: "subscriber"}},
	})
	var err error
	r.api, err = carapi.New(carapi.Config{Pool: r.db.Pool, Logger: r.log.logger(), CORSOrigin: "*"})
	require.NoError(t, err)
	return r
}

// request sends the page's request while a relay streams, so that the record is one of a change and not of the initial load.
func (r *recordRun) request(t *testing.T) []byte {
	var slot string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT 'record_' || oid FROM pg_database WHERE datname = current_database()").Scan(&slot))
	_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot(($1 || '_look')::name, 'pgoutput')", slot)
	require.NoError(t, err)
	database, err := rdsdb.NewURLLogin(r.db.URL, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{
		Database: database, Stream: "outbox", Slot: slot, Kinesis: kinesis.NewFromConfig(r.config), Log: r.log.logger(),
	})
	require.NoError(t, err)
	recordBackground(t, func(ctx context.Context) { _ = relay.Run(ctx) })
	labtest.Eventually(t, "a relay that streams", func() bool {
		var n int
		err := r.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
			WHERE s.slot_name = $1 AND r.state IN ('streaming', 'catchup')`, slot).Scan(&n)
		return err == nil && n == 1
	})

	body := domain.Named("Citroën")
	text := fmt.Sprintf(recordRequest, domain.Path, len(body), body)
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n"))))
	require.NoError(t, err)
	recorder := httptest.NewRecorder()
	r.api.ServeHTTP(recorder, request)
	require.Equal(t, http.StatusCreated, recorder.Code, recorder.Body)
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT aggregate_id, id FROM outbox").Scan(&r.id, &r.event))
	r.compare(t, "1-request.http", []byte(text+"\n"))
	var answer bytes.Buffer
	fmt.Fprintf(&answer, "HTTP/1.1 %d %s\n", recorder.Code, http.StatusText(recorder.Code))
	require.NoError(t, recorder.Header().Write(&answer))
	return append(bytes.ReplaceAll(answer.Bytes(), []byte("\r"), nil), append([]byte("\n"), recorder.Body.Bytes()...)...)
}

// row is the row as the database gives it, members in the order of the columns.
func (r *recordRun) row(t *testing.T) (row []byte) {
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT row_to_json(outbox) FROM outbox").Scan((*json.RawMessage)(&row)))
	return row
}

// pgoutput spells the messages of the transaction as the protocol has them
// (https://www.postgresql.org/docs/17/protocol-logicalrep-message-formats.html).
func (r *recordRun) pgoutput(t *testing.T) []byte {
	rows, err := r.db.Pool.Query(t.Context(), `SELECT data FROM pg_logical_slot_peek_binary_changes(
		(SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND slot_name LIKE '%_look'), NULL, NULL,
		'proto_version', '1', 'publication_names', 'outbox_publication')`)
	require.NoError(t, err)
	var out bytes.Buffer
	for rows.Next() {
		var m []byte
		require.NoError(t, rows.Scan(&m))
		switch m[0] {
		case 'B':
			fmt.Fprintf(&out, "B  final_lsn=%s commit_time=%s xid=%s\n", "2/7C007178", "2026-11-23T09:15:00.123456Z", "1139")
		case 'R':
			at := bytes.SplitN(m[5:], []byte{0}, 3)
			fmt.Fprintf(&out, "R  oid=16385 %s.%s replica_identity=%c columns=%d\n", at[0], at[1], at[2][0], binary.BigEndian.Uint16(at[2][1:]))
		case 'I':
			columns := int(binary.BigEndian.Uint16(m[6:]))
			fmt.Fprintf(&out, "I  oid=16385 %c columns=%d\n", m[5], columns)
			for rest := m[8:]; columns > 0; columns-- {
				require.Equal(t, byte('t'), rest[0])
				size := binary.BigEndian.Uint32(rest[1:])
				value := r.fixed(string(rest[5:][:size]))
				fmt.Fprintf(&out, "   t %3d %s\n", len(value), value)
				rest = rest[5+size:]
			}
		case 'C':
			fmt.Fprintf(&out, "C  flags=%d commit_lsn=%s end_lsn=%s commit_time=%s\n", m[1], "2/7C007178", "2/7C0071A8", "2026-11-23T09:15:00.123456Z")
		}
	}
	require.NoError(t, rows.Err())
	return out.Bytes()
}

// invocation is what the poller gives to the consumer.
func (r *recordRun) invocation(t *testing.T) (event events.KinesisEvent) {
	payloads := make(chan []byte, 1)
	r.poll(t, poller.Config{Function: func(_ context.Context, payload []byte) ([]byte, error) {
		payloads <- payload
		return nil, nil
	}})
	require.NoError(t, json.Unmarshal(recordReceive(t, payloads), &event))
	require.Len(t, event.Records, 1)
	return event
}

func (r *recordRun) poll(t *testing.T, c poller.Config) {
	c.Kinesis, c.Stream, c.Log, c.PollInterval = kinesis.NewFromConfig(r.config), "outbox", slog.New(slog.DiscardHandler), 10*time.Millisecond
	p, err := poller.New(c)
	require.NoError(t, err)
	recordBackground(t, func(ctx context.Context) { _ = p.Run(ctx) })
}

func (r *recordRun) publish(t *testing.T, event events.KinesisEvent) {
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge: eventbridge.NewFromConfig(r.config, func(o *eventbridge.Options) { o.HTTPClient = &r.wire }),
		SQS:         sqs.NewFromConfig(r.config), BusName: "outbox", FailureQueueURL: r.queue("failures"), Logger: r.log.logger(),
	})
	require.NoError(t, err)
	answer, err := lambda.NewHandler(consumer.Handle).Invoke(t.Context(), recordJSON(t, event))
	require.NoError(t, err)
	require.JSONEq(t, `{"batchItemFailures":null}`, string(answer))
}

// park publishes once more, and the bus refuses the event for its content.
func (r *recordRun) park(t *testing.T, event events.KinesisEvent) {
	refusal := r.server.Faults().Add(awslocal.Fault{
		Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "MalformedDetail", Message: "Detail is malformed.",
	})
	defer refusal.Off()
	r.publish(t, event)
}

// discard is another mapping of the stream, whose function fails and which gives up at once.
func (r *recordRun) discard(t *testing.T) {
	r.poll(t, poller.Config{
		MaxRetries: aws.Int(0), OnFailure: r.queue("discards"), SQS: sqs.NewFromConfig(r.config),
		Function: func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no memory") },
	})
}

// entry is the entry as the SDK sent it.
func (r *recordRun) entry() []byte {
	r.wire.mu.Lock()
	defer r.wire.mu.Unlock()
	return r.wire.first
}

func (r *recordRun) subscriber(t *testing.T) (event events.SQSEvent) {
	payloads := make(chan []byte, 8)
	p, err := poller.NewQueue(poller.QueueConfig{
		SQS: sqs.NewFromConfig(r.config), QueueURL: r.queue("subscriber"), Log: slog.New(slog.DiscardHandler), Concurrency: 1,
		Function: func(_ context.Context, payload []byte) ([]byte, error) {
			payloads <- payload
			return nil, nil
		},
	})
	require.NoError(t, err)
	recordBackground(t, p.Run)
	require.NoError(t, json.Unmarshal(recordReceive(t, payloads), &event))
	return event
}

func (r *recordRun) queue(name string) string { return awslocal.QueueURL(*r.config.BaseEndpoint, name) }

func (r *recordRun) message(t *testing.T, queue string) []byte {
	var body string
	labtest.Eventually(t, "a message in "+queue, func() bool {
		out, err := sqs.NewFromConfig(r.config).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(r.queue(queue)), WaitTimeSeconds: 20})
		require.NoError(t, err)
		for _, message := range out.Messages {
			body = *message.Body
		}
		return len(out.Messages) > 0
	})
	return []byte(body)
}
