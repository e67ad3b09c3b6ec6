package awslocal_test

import (
	"bytes"
	"strings"
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

func TestPutRecordsLimits(t *testing.T) {
	t.Parallel()
	_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
	c := client(t, conf)
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		records       []types.PutRecordsRequestEntry
		code, message string // empty: accepted
	}{
		"TakesEmptyData":           {records: entries(1, entry("k", 0))},
		"TakesWholeMiBWithKey":     {records: entries(1, entry("k", mib-1))},
		"TakesLongKeyInCharacters": {records: entries(1, entry(strings.Repeat("é", 256), 1))},
		"Takes500Records":          {records: entries(500, entry("k", 1))},
		"RefusesNoRecords":         {[]types.PutRecordsRequestEntry{}, "ValidationException", "Value at 'records' failed"},
		"Refuses501Records":        {entries(501, entry("k", 1)), "ValidationException", "Member must have length less than or equal to 500"},
		"RefusesEmptyKey":          {entries(1, entry("", 1)), "ValidationException", "'records.1.member.partitionKey'"},
		"RefusesKeyOf257":          {entries(1, entry(strings.Repeat("k", 257), 1)), "ValidationException", "less than or equal to 256"},
		"RefusesBigRecord": {
			append(entries(1, entry("k", 1)), entry("k", mib)), "ValidationException",
			"1 validation error detected: Value at 'records.2.member.data' failed to satisfy constraint: Member must have length less than or equal to 1048576",
		},
		"RefusesMoreThanTenMiB": {append(entries(10, entry("k", mib-1)), entry("k", 0)), "InvalidArgumentException", "Records size exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := c.PutRecords(t.Context(), &sdk.PutRecordsInput{StreamName: aws.String("s"), Records: tc.records})
			if tc.code == "" {
				require.NoError(t, err)
				require.Zero(t, *out.FailedRecordCount)
				require.Len(t, out.Records, len(tc.records))
				return
			}
			require.Equal(t, tc.code, code(t, err))
			require.Contains(t, message(t, err), tc.message)
		})
	}
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

// The shard must be the one that AWS takes, else a replay on AWS spreads keys differently from the laptop's.
func TestPutRecordsRouting(t *testing.T) {
	t.Parallel()
	_, conf := start(t, awslocal.Config{Streams: []awslocal.Stream{{Name: "s", Shards: 3}}})
	c := client(t, conf)
	put := func(e types.PutRecordsRequestEntry) (string, error) {
		out, err := c.PutRecords(t.Context(), &sdk.PutRecordsInput{
			StreamARN: aws.String("arn:aws:kinesis:us-east-1:000000000000:stream/s"), Records: []types.PutRecordsRequestEntry{e},
		})
		if err != nil {
			return "", err
		}
		return *out.Records[0].ShardId, nil
	}
	for key, shard := range map[string]string{
		"a": shard0,                 // MD5 0cc1...
		"c": shard0,                 // MD5 4a8a...
		"d": "shardId-000000000001", // MD5 8277...
		"b": "shardId-000000000001", // MD5 92eb...
		"e": "shardId-000000000002", // MD5 e167...
	} {
		got, err := put(entry(key, 1))
		require.NoError(t, err)
		require.Equal(t, shard, got, key)
	}
	const third = "113427455640312821154458202477256070485" // 2^128/3 rounded down: where shard 1 begins
	for hash, shard := range map[string]string{
		"0": shard0, "113427455640312821154458202477256070484": shard0, third: "shardId-000000000001",
		"340282366920938463463374607431768211455": "shardId-000000000002",
	} {
		e := entry("a", 1)
		e.ExplicitHashKey = aws.String(hash)
		got, err := put(e)
		require.NoError(t, err)
		require.Equal(t, shard, got, hash)
	}
	e := entry("a", 1)
	e.ExplicitHashKey = aws.String("340282366920938463463374607431768211456")
	_, err := put(e)
	require.Equal(t, "InvalidArgumentException", code(t, err))
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
		require.Empty(t, put(t, c, entry("k", 1000), 1)) // a small one still fits: successors overtake
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
