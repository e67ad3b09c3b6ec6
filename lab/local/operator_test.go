package local

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOperatorEnv(t *testing.T) {
	t.Parallel()
	local := clients{
		region: "us-east-1", accessKeyID: "local", secretKey: "local", stream: "s", bus: "b", queueURL: "http://127.0.0.1:4/q", logGroup: "/aws/events/b",
		local: "http://127.0.0.1:4", kinesisURL: "http://127.0.0.1:4", eventBridgeURL: "http://127.0.0.1:4", sqsURL: "http://127.0.0.1:4", logsURL: "http://127.0.0.1:4",
	}
	relay := &Relay{logPath: filepath.Join("data", "walrelay.log")}
	dir, err := filepath.Abs("data")
	require.NoError(t, err)
	require.Equal(t, []string{
		"DATABASE_URL=postgres://x", "SLOT_NAME=outbox_relay", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
		"STREAM_NAME=s", "EVENT_BUS_NAME=b", "FAILURE_QUEUE_URL=http://127.0.0.1:4/q", "BUS_LOG_GROUP=/aws/events/b",
		"AWS_ENDPOINT_URL=http://127.0.0.1:4", "AWS_ENDPOINT_URL_KINESIS=http://127.0.0.1:4", "AWS_ENDPOINT_URL_EVENTBRIDGE=http://127.0.0.1:4",
		"AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=http://127.0.0.1:4",
		"METRICS_LOGS=" + dir + "/dev.log:" + dir + "/walrelay.log",
	}, (&Path{DatabaseURL: "postgres://x", Relay: relay, slot: "outbox_relay", clients: local}).OperatorEnv())

	own := clients{
		region: "eu-west-1", accessKeyID: "AKIA", secretKey: "secret", sessionToken: "token", stream: "s", bus: "b", queueURL: "https://sqs/q",
		kinesisURL: "https://kinesis", eventBridgeURL: "https://events", sqsURL: "https://sqs",
	}
	env := (&Path{Relay: relay, slot: "mine", clients: own}).OperatorEnv()
	require.Contains(t, env, "AWS_SESSION_TOKEN=token")
	require.Contains(t, env, "AWS_ENDPOINT_URL_EVENTBRIDGE=https://events")
	require.Contains(t, env, "AWS_ENDPOINT_URL=http://127.0.0.1:9", "what nobody named is nowhere")
	for _, entry := range env {
		require.NotContains(t, entry, "BUS_LOG_GROUP", "only its owner knows it")
	}
}
