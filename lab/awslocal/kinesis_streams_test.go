package awslocal_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

// The conformance cases have what the emulators have as well.
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

	_, err = c.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: aws.String("t"), ShardCount: aws.Int32(501)})
	require.ErrorAs(t, err, new(*types.LimitExceededException))
	_, err = c.DescribeStreamSummary(t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: aws.String("t")})
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
}
