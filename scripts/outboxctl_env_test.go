package scripts

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutboxctlEnv(t *testing.T) {
	t.Parallel()
	outputs := "DatabaseEndpoint\tdb.example.com\nDatabaseSecretArn\tarn:secret\nKinesisStreamName\tstream\nEventBusName\tbus\n" +
		"EventBusLogGroupName\t/aws/events/demo\nFailureQueueUrl\thttps://sqs/f\nDiscardQueueUrl\thttps://sqs/d\nConsumerFunctionName\tdemo-cdcConsumer\n" +
		"SlotName\tcars_relay\nRetentionDays\t30"
	w := deployed.with(world{mainOutput: out(outputs)})

	t.Run("PrintsTheStage", func(t *testing.T) {
		t.Parallel()
		r := run(t, w, nil, "outboxctl-env.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, `# outboxctl's set-up for rds-outbox-demo-dev in us-east-1, from the stack's outputs (scripts/outboxctl-env.sh).
AWS_REGION=us-east-1
DB_HOST=db.example.com
DB_NAME=outboxdb
DB_USER=dbadmin
DB_SECRET_ARN=arn:secret
DB_SSL=true
STREAM_NAME=stream
# walrelay's slot. With DMS set the name of its slot: SELECT slot_name FROM pg_replication_slots
SLOT_NAME=cars_relay
EVENT_BUS_NAME=bus
BUS_LOG_GROUP=/aws/events/demo
FAILURE_QUEUE_URL=https://sqs/f
DISCARD_QUEUE_URL=https://sqs/d
CONSUMER_FUNCTION=demo-cdcConsumer
RETENTION_DAYS=30
`, r.Out)
		require.Zero(t, r.called("get-secret-value"), "no secret is fetched")
	})
	t.Run("KeepsAnEmulator", func(t *testing.T) {
		t.Parallel()
		r := run(t, w, []string{"AWS_ENDPOINT_URL=http://127.0.0.1:5"}, "outboxctl-env.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Contains(t, r.Out, "\nAWS_ENDPOINT_URL=http://127.0.0.1:5\n")
	})
	t.Run("NamesMissingOutputs", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed, nil, "outboxctl-env.sh", "dev", "us-east-1")
		require.Contains(t, r.errorLine(t), "has no output DatabaseEndpoint DatabaseSecretArn KinesisStreamName")
		require.Empty(t, r.Out)
	})
	t.Run("WrongUse", func(t *testing.T) {
		t.Parallel()
		r := run(t, w, nil, "outboxctl-env.sh", "dev")
		require.Equal(t, "outboxctl-env: usage: scripts/outboxctl-env.sh <stage> <region>", r.errorLine(t))
	})
}
