package outboxctl

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/outbox"
)

// putRecord puts the event on the stream by hand, as the relay or a replay does.
func (r *rig) putRecord(t *testing.T, e outbox.Event, createdAt time.Time, edit ...func(*outbox.Record)) (sequence string) {
	t.Helper()
	return r.putUnder(t, e.AggregateID, recordOf(t, e, createdAt, edit...))
}

// recordOf is what the relay puts on the stream for the event.
func recordOf(t *testing.T, e outbox.Event, createdAt time.Time, edit ...func(*outbox.Record)) []byte {
	t.Helper()
	record := outbox.Record{
		Row: dbgen.Outbox{
			ID: e.ID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.AggregateVersion, EventType: e.Type,
			EventData: e.Data, CreatedAt: createdAt,
		},
		Operation: outbox.OperationInsert, Timestamp: time.Now(),
		Commit: outbox.Commit{Time: createdAt.Add(time.Millisecond), TransactionID: 7, Sequence: 1, StreamPosition: "0/2A"},
	}
	for _, f := range edit {
		f(&record)
	}
	line, err := record.AppendJSON(nil)
	require.NoError(t, err)
	return line
}

// putUnder puts a record under any partition key.
func (r *rig) putUnder(t *testing.T, key string, data []byte) (sequence string) {
	t.Helper()
	out, err := kinesis.NewFromConfig(r.config).PutRecord(t.Context(), &kinesis.PutRecordInput{
		StreamName: aws.String(testStream), PartitionKey: &key, Data: data,
	})
	require.NoError(t, err)
	return *out.SequenceNumber
}

// shardOf is the shard that takes this partition key.
func (r *rig) shardOf(t *testing.T, key string) string {
	t.Helper()
	shards, err := newStreamReader(r.setup).shards(t.Context())
	require.NoError(t, err)
	for _, shard := range shards {
		if takesKey(shard, key) {
			return *shard.ShardId
		}
	}
	require.Fail(t, "no shard takes the key", key)
	return ""
}

// park puts a message into the failure queue as cdcConsumer does.
func (r *rig) park(t *testing.T, e outbox.Event) {
	t.Helper()
	body, err := json.Marshal(cdcconsumer.ParkedRecord{
		Reason: cdcconsumer.ReasonRefused, ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed.", ShardID: "shardId-000000000000",
		SequenceNumber: "1", EventID: e.ID.String(), AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.AggregateVersion,
	})
	require.NoError(t, err)
	_, err = sqs.NewFromConfig(r.config).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &r.setup.FailureQueue, MessageBody: aws.String(string(body))})
	require.NoError(t, err)
}

// keyOfAnotherShard is a partition key that leads to another shard than key does.
func (r *rig) keyOfAnotherShard(t *testing.T, key string) string {
	t.Helper()
	other := "public.outbox"
	for r.shardOf(t, other) == r.shardOf(t, key) {
		other += "."
	}
	return other
}

func (r *rig) where(t *testing.T, e outbox.Event) *WhereReport {
	t.Helper()
	report, err := Where(t.Context(), r.setup, e.ID, 0)
	require.NoError(t, err)
	return report
}

// deliver gives the event to a subscriber of this database, which does nothing.
func (r *rig) deliver(t *testing.T, s inbox.Ordered, e outbox.Event) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		_, err := inbox.InOrder(t.Context(), tx, s, inbox.Event{
			ID: e.ID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, Version: e.AggregateVersion, Type: e.Type, Data: e.Data, Timestamp: time.Now(),
		}, func(context.Context, inbox.Event) error { return nil })
		return err
	}))
}

func (r *rig) purge(t *testing.T, e outbox.Event) {
	t.Helper()
	_, err := r.db.Pool.Exec(t.Context(), "DELETE FROM outbox WHERE id = $1", e.ID)
	require.NoError(t, err)
}
