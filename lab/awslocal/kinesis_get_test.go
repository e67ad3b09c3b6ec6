package awslocal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func from(sequence string) func(*sdk.GetShardIteratorInput) {
	return func(in *sdk.GetShardIteratorInput) { in.StartingSequenceNumber = &sequence }
}

func at(when time.Time) func(*sdk.GetShardIteratorInput) {
	return func(in *sdk.GetShardIteratorInput) { in.Timestamp = &when }
}

// Long enough for several segments of several marks, so that the search has something to get wrong.
func TestAtTimestampFindsEveryMoment(t *testing.T) {
	t.Parallel()
	clock := newClock()
	_, conf := start(t, awslocal.Config{Streams: oneShard("s"), ShardBytes: 3 << 20, Now: clock.now})
	c := client(t, conf)
	var moments []time.Time
	for i := range 60 {
		clock.pass(10 * time.Millisecond)
		moments = append(moments, clock.now())
		c.put(fmt.Sprint(i), strings.Repeat("x", 10_000))
	}
	for i, moment := range moments {
		for _, early := range []time.Duration{0, 9 * time.Millisecond} {
			it := c.iterator(types.ShardIteratorTypeAtTimestamp, at(moment.Add(-early)))
			out, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it, Limit: aws.Int32(1)})
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(out.Records[0].Data))
		}
	}
}

// A laptop's clock is set back now and then. A timestamp that runs backwards would make AT_TIMESTAMP lose records.
func TestArrivalNeverRunsBackwards(t *testing.T) {
	t.Parallel()
	clock := newClock()
	conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s"), Now: clock.now}
	server, cfg := start(t, conf)
	client(t, cfg).put("1")
	first := clock.now()
	clock.pass(-time.Minute)
	client(t, cfg).put("2")
	require.NoError(t, server.Close())
	_, cfg = start(t, conf)
	c := client(t, cfg)
	c.put("3")
	clock.pass(time.Hour)
	require.Equal(t, numbered(1, 3), c.rest(c.iterator(types.ShardIteratorTypeAtTimestamp, at(first))))
}

func TestGetRecords(t *testing.T) {
	t.Parallel()
	t.Run("GivesWhatWasPut", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), Now: clock.now})
		c := client(t, conf)
		clock.pass(7 * time.Millisecond)
		data := []byte("\x00\xff\"<>&\u2028 é")
		key := "ключ\"\\\n<&>"
		put, err := c.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: aws.String("s"), PartitionKey: &key, Data: data})
		require.NoError(t, err)
		out := c.get(c.iterator(types.ShardIteratorTypeTrimHorizon))
		require.Len(t, out.Records, 1)
		require.Equal(t, data, out.Records[0].Data)
		require.Equal(t, key, *out.Records[0].PartitionKey)
		require.Equal(t, *put.SequenceNumber, *out.Records[0].SequenceNumber)
		require.Equal(t, clock.now().UTC(), out.Records[0].ApproximateArrivalTimestamp.UTC())
	})
	t.Run("StopsAtLimit", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), Now: clock.now})
		c := client(t, conf)
		c.put(numbered(1, 5)...)
		clock.pass(3 * time.Second)
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		out, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it, Limit: aws.Int32(2)})
		require.NoError(t, err)
		require.Len(t, out.Records, 2)
		require.EqualValues(t, 3000, *out.MillisBehindLatest)
		require.Equal(t, numbered(3, 5), c.rest(*out.NextShardIterator))
	})
	t.Run("TakesAnIteratorForFiveMinutes", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), Now: clock.now})
		c := client(t, conf)
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		clock.pass(5 * time.Minute)
		c.get(it)
		clock.pass(time.Millisecond)
		_, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it})
		require.Equal(t, "ExpiredIteratorException", code(t, err))
	})
	t.Run("StopsAt10000Records", func(t *testing.T) {
		t.Parallel()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
		c := client(t, conf)
		for i := range 21 {
			c.put(numbered(i*500+1, i*500+500)...)
		}
		out := c.get(c.iterator(types.ShardIteratorTypeTrimHorizon))
		require.Len(t, out.Records, 10_000)
		require.Positive(t, *out.MillisBehindLatest)
		require.Equal(t, numbered(10_001, 10_500), c.rest(*out.NextShardIterator))
	})
	t.Run("StopsAtTenMiB", func(t *testing.T) {
		t.Parallel()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
		c := client(t, conf)
		c.put(slices.Repeat([]string{strings.Repeat("x", 1<<20-3)}, 10)...) // also as much as PutRecords takes
		c.put("one more")
		out := c.get(c.iterator(types.ShardIteratorTypeTrimHorizon))
		require.Len(t, out.Records, 10)
		require.Equal(t, []string{"one more"}, c.rest(*out.NextShardIterator))
	})
	t.Run("RefusesExpiredIterator", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s"), Now: clock.now})
		c := client(t, conf)
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		clock.pass(5 * time.Minute)
		c.get(it)
		clock.pass(time.Millisecond)
		_, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it})
		require.ErrorAs(t, err, new(*types.ExpiredIteratorException))
		require.Contains(t, message(t, err), "created at time Sun Mar 01 12:00:00 UTC 2026")
	})
	t.Run("RefusesForgedIterator", func(t *testing.T) {
		t.Parallel()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
		c := client(t, conf)
		it := c.iterator(types.ShardIteratorTypeTrimHorizon)
		for _, forged := range []string{"x", "AAAA", it[:len(it)-8], "B" + it[1:]} {
			_, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &forged})
			require.Equal(t, "InvalidArgumentException", code(t, err), forged)
		}
	})
}
