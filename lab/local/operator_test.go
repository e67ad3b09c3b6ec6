package local

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"
)

func TestOperatorEnv(t *testing.T) {
	t.Parallel()
	local := Services{
		Region: "us-east-1", AccessKeyID: "local", SecretKey: "local", Stream: "s", Bus: "b", FailureQueueURL: "http://127.0.0.1:4/q", LogGroup: "/aws/events/b",
		Local: "http://127.0.0.1:4", KinesisURL: "http://127.0.0.1:4", EventBridgeURL: "http://127.0.0.1:4", SQSURL: "http://127.0.0.1:4", LogsURL: "http://127.0.0.1:4",
	}
	require.Equal(t, []string{
		"DATABASE_URL=postgres://x", "SLOT_NAME=outbox_relay", "RETENTION_DAYS=14", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
		"STREAM_NAME=s", "EVENT_BUS_NAME=b", "FAILURE_QUEUE_URL=http://127.0.0.1:4/q", "BUS_LOG_GROUP=/aws/events/b",
		"AWS_ENDPOINT_URL=http://127.0.0.1:4", "AWS_ENDPOINT_URL_KINESIS=http://127.0.0.1:4", "AWS_ENDPOINT_URL_EVENTBRIDGE=http://127.0.0.1:4",
		"AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=http://127.0.0.1:4",
	}, (&Path{DatabaseURL: "postgres://x", slot: "outbox_relay", Services: local}).OperatorEnv())

	own := Services{
		Region: "eu-west-1", AccessKeyID: "AKIA", SecretKey: "secret", SessionToken: "token", Stream: "s", Bus: "b", FailureQueueURL: "https://sqs/q",
		KinesisURL: "https://kinesis", EventBridgeURL: "https://events", SQSURL: "https://sqs",
	}
	env := (&Path{slot: "mine", Services: own}).OperatorEnv()
	require.Contains(t, env, "AWS_SESSION_TOKEN=token")
	require.Contains(t, env, "AWS_ENDPOINT_URL_EVENTBRIDGE=https://events")
	require.Contains(t, env, "AWS_ENDPOINT_URL=http://127.0.0.1:9", "what nobody named is nowhere")
	for _, entry := range env {
		require.NotContains(t, entry, "BUS_LOG_GROUP", "only its owner knows it")
	}
	_, err := (&Path{slot: "mine", Services: own}).Operator()
	require.ErrorContains(t, err, "BUS_LOG_GROUP")

	own.LogGroup = "/aws/events/b"
	setup, err := (&Path{slot: "mine", Services: own}).Operator()
	require.NoError(t, err)
	require.Nil(t, setup.Peek, "only its owner can see into a queue")
	require.Equal(t, "https://kinesis", *kinesis.NewFromConfig(setup.AWS).Options().BaseEndpoint)
	require.Equal(t, "https://sqs", *sqs.NewFromConfig(setup.AWS).Options().BaseEndpoint)
	require.Equal(t, nobody, *cloudwatchlogs.NewFromConfig(setup.AWS).Options().BaseEndpoint, "not AWS")
}
