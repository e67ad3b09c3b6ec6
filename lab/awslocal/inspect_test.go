package awslocal_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

// Whoever runs the server sees each record before the answer, and where its shards end.
func TestOnRecordSeesWhatAStreamTakes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]awslocal.StreamRecord{}
	server, config := awstest.Start(t, awslocal.Config{
		Streams: []awslocal.Stream{{Name: "stream", Shards: 2}},
		OnRecord: func(r awslocal.StreamRecord) {
			mu.Lock()
			defer mu.Unlock()
			seen[r.SequenceNumber] = r
		},
	})
	require.Equal(t, []awslocal.ShardEnd{{Shard: "shardId-000000000000"}, {Shard: "shardId-000000000001"}}, server.ShardEnds("stream"))
	require.Nil(t, server.ShardEnds("other"))
	server.Faults().Add(awslocal.Fault{Service: "kinesis", Kind: awslocal.EntryError, Code: "InternalFailure", Match: "refused"})
	client := kinesis.NewFromConfig(config)
	var entries []types.PutRecordsRequestEntry
	for _, key := range []string{"a", "b", "c", "refused", "d"} {
		entries = append(entries, types.PutRecordsRequestEntry{PartitionKey: aws.String(key), Data: []byte("data of " + key)})
	}
	out, err := client.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: aws.String("stream"), Records: entries})
	require.NoError(t, err)
	require.Len(t, seen, 4)
	ends := map[string]uint64{}
	for i, answer := range out.Records {
		if answer.ErrorCode != nil {
			require.Equal(t, "refused", *entries[i].PartitionKey)
			continue
		}
		r := seen[*answer.SequenceNumber]
		require.Equal(t, "stream", r.Stream)
		require.Equal(t, *answer.ShardId, r.Shard)
		require.Equal(t, *entries[i].PartitionKey, r.PartitionKey)
		require.Equal(t, entries[i].Data, r.Data)
		require.False(t, r.Arrival.IsZero())
		index, ok := awslocal.SequenceIndex(r.SequenceNumber)
		require.True(t, ok)
		require.Equal(t, index, r.Index)
		ends[r.Shard] = max(ends[r.Shard], index)
	}
	for _, end := range server.ShardEnds("stream") {
		require.Equal(t, ends[end.Shard], end.Index)
	}
	_, ok := awslocal.SequenceIndex("49")
	require.False(t, ok)
}

func TestReadQueueReceivesNothing(t *testing.T) {
	t.Parallel()
	server, config := awstest.Start(t, awslocal.Config{Queues: []string{"queue"}})
	client := sqs.NewFromConfig(config)
	url := aws.String(awslocal.QueueURL(*config.BaseEndpoint, "queue"))
	for _, body := range []string{"one", "two", "three"} {
		_, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: url, MessageBody: aws.String(body)})
		require.NoError(t, err)
	}
	out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url})
	require.NoError(t, err)
	_, err = client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: out.Messages[0].ReceiptHandle})
	require.NoError(t, err)
	sentAt := map[string]string{} // by id
	for range 2 {
		var bodies []string
		require.NoError(t, server.ReadQueue(*url, func(id, body string, sent time.Time) {
			bodies = append(bodies, body)
			sentAt[id] = strconv.FormatInt(sent.UnixMilli(), 10)
		}))
		require.Equal(t, []string{"two", "three"}, bodies)
	}
	require.ErrorContains(t, server.ReadQueue(*url+"-other", nil), "-other")
	out, err = client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: url, MaxNumberOfMessages: 10, MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"ApproximateReceiveCount", "SentTimestamp"},
	})
	require.NoError(t, err)
	require.Len(t, out.Messages, 2)
	require.Equal(t, sentAt[*out.Messages[0].MessageId], out.Messages[0].Attributes["SentTimestamp"])
	require.Equal(t, "1", out.Messages[0].Attributes["ApproximateReceiveCount"])
}
