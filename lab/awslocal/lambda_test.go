package awslocal_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestEventSourceMappings(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
	_, cfg := start(t, awslocal.Config{Mappings: []awslocal.Mapping{
		{
			Function: "consumer", Stream: "s", BatchSize: 100, ParallelizationFactor: 2, MaximumRetryAttempts: -1, MaximumRecordAge: 601200,
			BisectOnError: true, ReportBatchItemFailures: true, OnFailureQueue: "discards",
		},
		{Function: "consumer", Stream: "other", State: "Disabled", Filters: []string{`{"data":{}}`}},
	}})
	client := sdk.NewFromConfig(cfg)

	list := func(t *testing.T, function, stream string) []types.EventSourceMappingConfiguration {
		t.Helper()
		in := &sdk.ListEventSourceMappingsInput{FunctionName: &function}
		if stream != "" {
			in.EventSourceArn = &stream
		}
		out, err := client.ListEventSourceMappings(t.Context(), in)
		require.NoError(t, err)
		return out.EventSourceMappings
	}

	t.Run("TellWhatLambdaTells", func(t *testing.T) {
		t.Parallel()
		all := list(t, "consumer", arn)
		require.Len(t, all, 1)
		m := all[0]
		require.NotEmpty(t, m.UUID)
		m.UUID = nil
		require.Equal(t, types.EventSourceMappingConfiguration{
			EventSourceArn: aws.String(arn), FunctionArn: aws.String("arn:aws:lambda:us-east-1:000000000000:function:consumer"),
			State: aws.String("Enabled"), StateTransitionReason: aws.String("User action"), LastProcessingResult: aws.String("OK"),
			StartingPosition: types.EventSourcePositionTrimHorizon, BatchSize: aws.Int32(100), ParallelizationFactor: aws.Int32(2),
			MaximumRetryAttempts: aws.Int32(-1), MaximumRecordAgeInSeconds: aws.Int32(601200), BisectBatchOnFunctionError: aws.Bool(true),
			MaximumBatchingWindowInSeconds: aws.Int32(0), TumblingWindowInSeconds: aws.Int32(0),
			FunctionResponseTypes: []types.FunctionResponseType{types.FunctionResponseTypeReportBatchItemFailures},
			DestinationConfig:     &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: aws.String("arn:aws:sqs:us-east-1:000000000000:discards")}},
		}, m)
	})

	t.Run("AreThoseOfTheFunctionAndTheStream", func(t *testing.T) {
		t.Parallel()
		require.Len(t, list(t, "consumer", ""), 2)
		require.Len(t, list(t, "arn:aws:lambda:us-east-1:000000000000:function:consumer", ""), 2)
		require.Empty(t, list(t, "another", ""))
		other := list(t, "consumer", "arn:aws:kinesis:us-east-1:000000000000:stream/other")[0]
		require.Equal(t, "Disabled", *other.State)
		require.Empty(t, other.FunctionResponseTypes)
		require.Len(t, other.FilterCriteria.Filters, 1)
	})

	t.Run("CanBeForbidden", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, awslocal.Config{})
		server.Faults().Add(awslocal.Fault{Service: "lambda", Kind: awslocal.CallError, Code: "AccessDeniedException", Status: 403, Message: "no"})
		_, err := sdk.NewFromConfig(cfg).ListEventSourceMappings(t.Context(), &sdk.ListEventSourceMappingsInput{FunctionName: aws.String("consumer")})
		require.Equal(t, "AccessDeniedException", code(t, err))
		require.Equal(t, "no", message(t, err))
	})
}
