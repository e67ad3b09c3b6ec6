package awslocal_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func entry(key string, size int) types.PutRecordsRequestEntry {
	return types.PutRecordsRequestEntry{PartitionKey: aws.String(key), Data: bytes.Repeat([]byte("x"), size)}
}

func entries(n int, e types.PutRecordsRequestEntry) (all []types.PutRecordsRequestEntry) {
	for range n {
		all = append(all, e)
	}
	return all
}

func TestPutRecord(t *testing.T) {
	t.Parallel()
	_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
	c := client(t, conf)
	out, err := c.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: aws.String("s"), PartitionKey: aws.String("k"), Data: []byte("one")})
	require.NoError(t, err)
	require.Equal(t, shard0, *out.ShardId)
	require.Equal(t, []string{"one"}, c.rest(c.iterator(types.ShardIteratorTypeTrimHorizon)))

	_, err = c.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: aws.String("absent"), PartitionKey: aws.String("k"), Data: []byte("one")})
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
	require.Equal(t, "Stream absent under account 000000000000 not found.", message(t, err))
	_, err = c.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: aws.String("s"), PartitionKey: aws.String(""), Data: []byte("one")})
	require.Equal(t, "ValidationException", code(t, err))
}

func TestShardLimits(t *testing.T) {
	t.Parallel()
	put := func(t *testing.T, c streamClient, e types.PutRecordsRequestEntry, n int) (failed []int) {
		out, err := c.PutRecords(t.Context(), &sdk.PutRecordsInput{StreamName: aws.String("s"), Records: entries(n, e)})
		require.NoError(t, err)
		for i, r := range out.Records {
			if r.ErrorCode != nil {
				failed = append(failed, i)
				require.Equal(t, "ProvisionedThroughputExceededException", *r.ErrorCode)
				require.Equal(t, "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000.", *r.ErrorMessage)
				require.Nil(t, r.SequenceNumber)
			}
		}
		require.EqualValues(t, len(failed), *out.FailedRecordCount)
		return failed
	}
	t.Run("RefusesMoreThanThousandRecordsASecond", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), ShardLimits: true, Now: clock.now})
		c := client(t, conf)
		require.Empty(t, put(t, c, entry("k", 1), 500))
		require.Empty(t, put(t, c, entry("k", 1), 490))
		require.Equal(t, []int{10, 11, 12, 13, 14}, put(t, c, entry("k", 1), 15))
		clock.pass(100 * time.Millisecond)
		require.Len(t, put(t, c, entry("k", 1), 110), 10)
		require.Len(t, c.rest(c.iterator(types.ShardIteratorTypeTrimHorizon)), 1100)
	})
	t.Run("RefusesMoreThanOneMiBASecond", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), ShardLimits: true, Now: clock.now})
		c := client(t, conf)
		require.Equal(t, []int{4}, put(t, c, entry("k", 250<<10), 5))
		require.Empty(t, put(t, c, entry("k", 1000), 1)) // a small one still fits, so successors overtake
		clock.pass(time.Second)
		require.Empty(t, put(t, c, entry("k", 250<<10), 4))
	})
	t.Run("RefusesSixthGetRecordsInASecond", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), ShardLimits: true, Now: clock.now})
		c := client(t, conf)
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		for range 5 {
			c.get(it)
		}
		_, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it})
		require.ErrorAs(t, err, new(*types.ProvisionedThroughputExceededException))
		clock.pass(200 * time.Millisecond)
		c.get(it)
	})
	t.Run("MakesReadersPayForMuchData", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), ShardLimits: true, Now: clock.now})
		c := client(t, conf)
		for range 4 {
			require.Empty(t, put(t, c, entry("k", 1<<20-1), 1))
			clock.pass(time.Second)
		}
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		require.Len(t, c.get(it).Records, 4)
		clock.pass(900 * time.Millisecond)
		_, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it})
		require.ErrorAs(t, err, new(*types.ProvisionedThroughputExceededException))
		clock.pass(200 * time.Millisecond)
		c.get(it)
	})
}
