package outboxctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/poller"
	"rds-outbox-demo/outbox"
)

// path is a rig with the consumer behind the stream.
type path struct {
	*rig
	checkpoint string
	mu         sync.Mutex
	bus        []awslocal.BusEvent
}

func newPath(t *testing.T, edit ...func(*awslocal.Config)) *path {
	t.Helper()
	p := &path{checkpoint: filepath.Join(t.TempDir(), "checkpoint.json")}
	p.rig = newRig(t, append(edit, func(c *awslocal.Config) {
		c.OnEvent = func(e awslocal.BusEvent) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.bus = append(p.bus, e)
		}
	})...)
	return p
}

// consume runs the consumer on the stream, from where it ended the last time, until stop.
func (p *path) consume(t *testing.T, edit ...func(*poller.Config)) (stop func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge: eventbridge.NewFromConfig(p.config), SQS: sqs.NewFromConfig(p.config), BusName: testBus,
		FailureQueueURL: p.setup.FailureQueue, Logger: log,
	})
	require.NoError(t, err)
	config := poller.Config{
		Kinesis: kinesis.NewFromConfig(p.config), Stream: testStream, Function: poller.Handler(consumer.Handle), Log: log,
		PollInterval: 10 * time.Millisecond, CheckpointFile: p.checkpoint, SQS: sqs.NewFromConfig(p.config),
	}
	for _, f := range edit {
		f(&config)
	}
	mapping, err := poller.New(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- mapping.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// arrived are the bus's copies of an event.
func (p *path) arrived(t *testing.T, e outbox.Event) (copies []awslocal.BusEvent) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.bus {
		var detail struct {
			EventID string `json:"eventId"`
		}
		require.NoError(t, json.Unmarshal(b.Detail, &detail))
		if detail.EventID == e.ID.String() {
			copies = append(copies, b)
		}
	}
	return copies
}

// recordOf is the record that the relay makes of the event's row.
func (r *rig) recordOf(t *testing.T, e outbox.Event) []byte {
	t.Helper()
	row, err := dbgen.New(r.db.Pool).OutboxGet(t.Context(), e.ID)
	require.NoError(t, err)
	line, err := outbox.Record{Row: row, Operation: outbox.OperationInsert, Timestamp: time.Now()}.AppendJSON(nil)
	require.NoError(t, err)
	return line
}

// onto puts a record on the stream and returns its place there.
func (r *rig) onto(t *testing.T, key string, data []byte) (shard, sequence string) {
	t.Helper()
	out, err := kinesis.NewFromConfig(r.config).PutRecord(t.Context(), &kinesis.PutRecordInput{
		StreamName: aws.String(testStream), PartitionKey: &key, Data: data,
	})
	require.NoError(t, err)
	return *out.ShardId, *out.SequenceNumber
}

// written commits the events and puts their records on the stream.
func (r *rig) written(t *testing.T, events ...outbox.Event) {
	t.Helper()
	r.commit(t, events...)
	for _, e := range events {
		r.onto(t, e.AggregateID, r.recordOf(t, e))
	}
}

// streamed reads the whole stream.
func (r *rig) streamed(t *testing.T) (all []kinesistypes.Record) {
	t.Helper()
	reader := newStreamReader(r.setup)
	reader.pause = 0
	shards, err := reader.shards(t.Context())
	require.NoError(t, err)
	for _, shard := range shards {
		require.NoError(t, reader.read(t.Context(), *shard.ShardId, position{at: time.Unix(0, 0)}, func(raw kinesistypes.Record) error {
			all = append(all, raw)
			return nil
		}))
	}
	return all
}

// versions are those of an aggregate on the stream, in order. A replay marker, if given, chooses that replay's records.
func (r *rig) versions(t *testing.T, aggregateID, marker string) (all []int64) {
	t.Helper()
	for _, raw := range r.streamed(t) {
		record, _, err := outbox.ParseRecord(raw.Data)
		if err == nil && record.Row.AggregateID == aggregateID && (marker == "" || record.Replay == marker) {
			require.Equal(t, aggregateID, *raw.PartitionKey)
			all = append(all, record.Row.AggregateVersion)
		}
	}
	return all
}

// requireInOrder checks that each version from 1 to n is there and that its first copy comes behind that of the one before. It returns how
// many further copies there are: an answer that was lost makes some.
func requireInOrder(t *testing.T, n int64, versions []int64) (copies int) {
	t.Helper()
	next := int64(1)
	for _, version := range versions {
		require.LessOrEqual(t, version, next, "came too soon")
		if version == next {
			next++
		} else {
			copies++
		}
	}
	require.Equal(t, n+1, next)
	return copies
}

func upTo(n int64) (all []int64) {
	for i := int64(1); i <= n; i++ {
		all = append(all, i)
	}
	return all
}

// parkEvent puts the same message into the failure queue as the consumer would, for a record at a
// place on the stream.
func (r *rig) parkEvent(t *testing.T, e outbox.Event, sequence int, edit ...func(*cdcconsumer.ParkedRecord)) {
	t.Helper()
	data := r.recordOf(t, e)
	parked := cdcconsumer.ParkedRecord{
		Reason: cdcconsumer.ReasonRefused, ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed.",
		StreamARN: "arn:aws:kinesis:us-east-1:000000000000:stream/" + testStream, ShardID: "shardId-000000000000",
		SequenceNumber: fmt.Sprint(sequence), PartitionKey: e.AggregateID, ArrivalTime: time.Now(),
		EventID: e.ID.String(), EventType: e.Type, AggregateType: e.AggregateType, AggregateID: e.AggregateID,
		AggregateVersion: e.AggregateVersion, Data: data, Size: len(data),
	}
	for _, f := range edit {
		f(&parked)
	}
	body, err := json.Marshal(parked)
	require.NoError(t, err)
	r.send(t, r.setup.FailureQueue, string(body))
}

func (r *rig) send(t *testing.T, queue, body string) {
	t.Helper()
	_, err := sqs.NewFromConfig(r.config).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body})
	require.NoError(t, err)
}

// depth returns how many messages are visible and how many hidden.
func (r *rig) depth(t *testing.T, queue string) string {
	t.Helper()
	out, err := sqs.NewFromConfig(r.config).GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &queue, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll},
	})
	require.NoError(t, err)
	return out.Attributes["ApproximateNumberOfMessages"] + "+" + out.Attributes["ApproximateNumberOfMessagesNotVisible"]
}

// inProcess runs a command of the program in this process, for what takes a context or a clock.
func (r *rig) inProcess() (p *program, out, progress *bytes.Buffer) {
	out, progress = &bytes.Buffer{}, &bytes.Buffer{}
	return &program{out: out, progress: progress, json: true}, out, progress
}

// sorted orders messages as a human lists them.
func sorted(all []redriveOutcome) []redriveOutcome {
	slices.SortFunc(all, func(a, b redriveOutcome) int {
		return cmp.Or(cmp.Compare(a.AggregateID, b.AggregateID), cmp.Compare(a.AggregateVersion, b.AggregateVersion))
	})
	return all
}
