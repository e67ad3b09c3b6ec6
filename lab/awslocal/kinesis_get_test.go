package awslocal_test

import (
	"fmt"
	"math/big"
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

func TestIterators(t *testing.T) {
	t.Parallel()
	clock := newClock()
	_, conf := start(t, awslocal.Config{Streams: oneShard("s"), Now: clock.now})
	c := client(t, conf)
	began := clock.now()
	clock.pass(time.Second)
	seqs := c.put("1", "2")
	second := clock.now()
	clock.pass(1500 * time.Millisecond)
	third := clock.now()
	seqs = append(seqs, c.put("3")...)
	clock.pass(time.Millisecond)

	for name, tc := range map[string]struct {
		iterator string
		want     []string
	}{
		"TrimHorizonBeginsAtOldest":     {c.iterator(types.ShardIteratorTypeTrimHorizon), numbered(1, 3)},
		"LatestBeginsBehindNewest":      {c.iterator(types.ShardIteratorTypeLatest), []string{}},
		"AtSequenceNumberIncludesIt":    {c.iterator(types.ShardIteratorTypeAtSequenceNumber, from(seqs[1])), numbered(2, 3)},
		"AfterSequenceNumberExcludesIt": {c.iterator(types.ShardIteratorTypeAfterSequenceNumber, from(seqs[1])), numbered(3, 3)},
		"AfterNewestWaits":              {c.iterator(types.ShardIteratorTypeAfterSequenceNumber, from(seqs[2])), []string{}},
		"AtTimestampIncludesThatMoment": {c.iterator(types.ShardIteratorTypeAtTimestamp, at(second)), numbered(1, 3)},
		"AtTimestampBetweenTakesNext":   {c.iterator(types.ShardIteratorTypeAtTimestamp, at(second.Add(time.Millisecond))), numbered(3, 3)},
		"AtTimestampExactlyOnLater":     {c.iterator(types.ShardIteratorTypeAtTimestamp, at(third)), numbered(3, 3)},
		"AtTimestampBeforeAllTakesAll":  {c.iterator(types.ShardIteratorTypeAtTimestamp, at(began)), numbered(1, 3)},
		"AtTimestampAfterAllWaits":      {c.iterator(types.ShardIteratorTypeAtTimestamp, at(third.Add(time.Millisecond))), []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, conf)
			require.Equal(t, tc.want, c.rest(tc.iterator))
		})
	}
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

func TestIteratorErrors(t *testing.T) {
	t.Parallel()
	clock := newClock()
	_, conf := start(t, awslocal.Config{Streams: []awslocal.Stream{{Name: "s", Shards: 2}, {Name: "other", Shards: 1}}, Now: clock.now})
	c := client(t, conf)
	shards, err := c.ListShards(t.Context(), &sdk.ListShardsInput{StreamName: aws.String("s")})
	require.NoError(t, err)
	first := *shards.Shards[0].SequenceNumberRange.StartingSequenceNumber
	unborn := func() string { // the number that the next record will get
		n, ok := new(big.Int).SetString(first, 10)
		require.True(t, ok)
		return n.Add(n, new(big.Int).Lsh(big.NewInt(1), 80)).String()
	}()
	in := func(kind types.ShardIteratorType, edit ...func(*sdk.GetShardIteratorInput)) *sdk.GetShardIteratorInput {
		in := &sdk.GetShardIteratorInput{StreamName: aws.String("s"), ShardId: aws.String(shard0), ShardIteratorType: kind}
		for _, edit := range edit {
			edit(in)
		}
		return in
	}
	for name, tc := range map[string]struct {
		in            *sdk.GetShardIteratorInput
		code, message string
	}{
		"UnknownStream":         {in("LATEST", func(in *sdk.GetShardIteratorInput) { in.StreamName = aws.String("absent") }), "ResourceNotFoundException", "not found"},
		"UnknownShard":          {in("LATEST", func(in *sdk.GetShardIteratorInput) { in.ShardId = aws.String("shardId-000000000007") }), "ResourceNotFoundException", "does not exist"},
		"UnknownType":           {in("NEWEST"), "ValidationException", "enum value set"},
		"NoSequenceNumber":      {in("AT_SEQUENCE_NUMBER"), "InvalidArgumentException", "Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber."},
		"SequenceNumberTooMuch": {in("LATEST", from(first)), "InvalidArgumentException", "Request specified LATEST and also a StartingSequenceNumber."},
		"SequenceNumberOfAnotherShard": {
			in("AT_SEQUENCE_NUMBER", from(*shards.Shards[1].SequenceNumberRange.StartingSequenceNumber)), "InvalidArgumentException",
			"It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000",
		},
		"SequenceNumberOfAnotherLife": {in("AT_SEQUENCE_NUMBER", from("49594189147623985939251953501666965394405037144469929986")), "InvalidArgumentException", "did not come from this stream"},
		"SequenceNumberNotGivenYet":   {in("AFTER_SEQUENCE_NUMBER", from(unborn)), "InvalidArgumentException", "is invalid."},
		"SequenceNumberNonsense":      {in("AT_SEQUENCE_NUMBER", from("17")), "InvalidArgumentException", "is invalid."},
		"NoTimestamp":                 {in("AT_TIMESTAMP"), "InvalidArgumentException", "Must specify timestampInMillis"},
		"TimestampInFuture":           {in("AT_TIMESTAMP", at(clock.now().Add(time.Second))), "InvalidArgumentException", "cannot be greater than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.GetShardIterator(t.Context(), tc.in)
			require.Equal(t, tc.code, code(t, err))
			require.Contains(t, message(t, err), tc.message)
		})
	}
	t.Run("StartOfEmptyShardIsAccepted", func(t *testing.T) {
		t.Parallel()
		require.Empty(t, client(t, conf).rest(c.iterator(types.ShardIteratorTypeAtSequenceNumber, from(first))))
	})
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
	t.Run("CountsSequenceNumbersUp", func(t *testing.T) {
		t.Parallel()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
		seqs := client(t, conf).put(numbered(1, 100)...)
		for i, seq := range seqs {
			require.Len(t, seq, 56)
			require.True(t, i == 0 || strings.Compare(seqs[i-1], seq) < 0)
		}
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
		for limit, want := range map[int32]string{10_001: "InvalidArgumentException", 0: "ValidationException"} {
			_, err = c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: &it, Limit: &limit})
			require.Equal(t, want, code(t, err))
		}
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
	t.Run("ContinuesWhereItStoppedWhenNothingWasThere", func(t *testing.T) {
		t.Parallel()
		_, conf := start(t, awslocal.Config{Streams: oneShard("s")})
		c := client(t, conf)
		out := c.get(c.iterator(types.ShardIteratorTypeLatest))
		require.Empty(t, out.Records)
		require.Zero(t, *out.MillisBehindLatest)
		c.put("1")
		require.Equal(t, numbered(1, 1), c.rest(*out.NextShardIterator))
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
