package awslocal_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

// start serves conf and returns a configuration that does not retry, because a test wants to see
// the first answer.
func start(t *testing.T, conf awslocal.Config) (*awslocal.Server, aws.Config) {
	t.Helper()
	server, cfg := awstest.Start(t, conf)
	cfg.RetryMaxAttempts = 1
	return server, cfg
}

func code(t *testing.T, err error) string {
	t.Helper()
	var e smithy.APIError
	require.ErrorAs(t, err, &e)
	return e.ErrorCode()
}

func message(t *testing.T, err error) string {
	t.Helper()
	var e smithy.APIError
	require.ErrorAs(t, err, &e)
	return e.ErrorMessage()
}

func status(err error) int {
	var e interface{ HTTPStatusCode() int }
	if errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}

// clock is a time that a test moves on.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time              { return time.Unix(0, c.nanos.Load()) }
func (c *clock) pass(d time.Duration)        { c.nanos.Add(int64(d)) }
func oneShard(name string) []awslocal.Stream { return []awslocal.Stream{{Name: name, Shards: 1}} }

const shard0 = "shardId-000000000000"

// streamClient is a Kinesis client for the stream "s".
type streamClient struct {
	t *testing.T
	*sdk.Client
}

func client(t *testing.T, conf aws.Config) streamClient {
	return streamClient{t, sdk.NewFromConfig(conf)}
}

// put stores one record per text, all with the same key, and returns their sequence numbers.
func (c streamClient) put(texts ...string) (sequences []string) {
	c.t.Helper()
	in := &sdk.PutRecordsInput{StreamName: aws.String("s")}
	for _, text := range texts {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String("key"), Data: []byte(text)})
	}
	out, err := c.PutRecords(c.t.Context(), in)
	require.NoError(c.t, err)
	require.Zero(c.t, *out.FailedRecordCount)
	for _, r := range out.Records {
		sequences = append(sequences, *r.SequenceNumber)
	}
	return sequences
}

func (c streamClient) iterator(kind types.ShardIteratorType, edit ...func(*sdk.GetShardIteratorInput)) string {
	c.t.Helper()
	in := &sdk.GetShardIteratorInput{StreamName: aws.String("s"), ShardId: aws.String(shard0), ShardIteratorType: kind}
	for _, edit := range edit {
		edit(in)
	}
	out, err := c.GetShardIterator(c.t.Context(), in)
	require.NoError(c.t, err)
	return *out.ShardIterator
}

func (c streamClient) get(iterator string) *sdk.GetRecordsOutput {
	c.t.Helper()
	out, err := c.GetRecords(c.t.Context(), &sdk.GetRecordsInput{ShardIterator: &iterator}, func(o *sdk.Options) {
		// smithy-go 1.28.8 at times closes a request's body under net/http, and the connection with it.
		o.Retryer = retry.NewStandard()
	})
	require.NoError(c.t, err)
	return out
}

// rest reads to the shard's end.
func (c streamClient) rest(iterator string) (all []string) {
	c.t.Helper()
	all = []string{}
	for {
		out := c.get(iterator)
		for _, r := range out.Records {
			all = append(all, string(r.Data))
		}
		if *out.MillisBehindLatest == 0 {
			return all
		}
		iterator = *out.NextShardIterator
	}
}

func numbered(from, to int) (texts []string) {
	for i := from; i <= to; i++ {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}
