package awslocal_test

import (
	"math/big"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestCreateStream(t *testing.T) {
	t.Parallel()
	_, conf := start(t, awslocal.Config{})
	c := client(t, conf)
	_, err := c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("s"), ShardCount: aws.Int32(2)})
	require.NoError(t, err)
	summary, err := c.DescribeStreamSummary(t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: aws.String("s")})
	require.NoError(t, err)
	require.Equal(t, types.StreamStatusActive, summary.StreamDescriptionSummary.StreamStatus)
	require.Equal(t, "arn:aws:kinesis:us-east-1:000000000000:stream/s", *summary.StreamDescriptionSummary.StreamARN)
	require.EqualValues(t, 2, *summary.StreamDescriptionSummary.OpenShardCount)
	require.EqualValues(t, 168, *summary.StreamDescriptionSummary.RetentionPeriodHours)

	_, err = c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("s"), ShardCount: aws.Int32(2)})
	require.ErrorAs(t, err, new(*types.ResourceInUseException))
	_, err = c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("a/b"), ShardCount: aws.Int32(2)})
	require.Equal(t, "ValidationException", code(t, err))
	_, err = c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("t"), ShardCount: aws.Int32(0)})
	require.Equal(t, "ValidationException", code(t, err))
	_, err = c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("t"), ShardCount: aws.Int32(501)})
	require.ErrorAs(t, err, new(*types.LimitExceededException))
	_, err = c.DescribeStreamSummary(t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: aws.String("t")})
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
}

func TestShardsCoverEveryHashOnce(t *testing.T) {
	t.Parallel()
	_, conf := start(t, awslocal.Config{Streams: []awslocal.Stream{{Name: "s", Shards: 7}}})
	c := client(t, conf)
	var shards []types.Shard
	in := &sdk.ListShardsInput{StreamName: aws.String("s"), MaxResults: aws.Int32(3)}
	for pages := 1; ; pages++ {
		out, err := c.ListShards(t.Context(), in)
		require.NoError(t, err)
		shards = append(shards, out.Shards...)
		if out.NextToken == nil {
			require.Equal(t, 3, pages)
			break
		}
		in = &sdk.ListShardsInput{NextToken: out.NextToken, MaxResults: aws.Int32(3)}
	}
	next := new(big.Int)
	for _, shard := range shards {
		require.Equal(t, next.String(), *shard.HashKeyRange.StartingHashKey)
		end, ok := new(big.Int).SetString(*shard.HashKeyRange.EndingHashKey, 10)
		require.True(t, ok)
		next = end.Add(end, big.NewInt(1))
	}
	require.Equal(t, new(big.Int).Lsh(big.NewInt(1), 128).String(), next.String())
}
