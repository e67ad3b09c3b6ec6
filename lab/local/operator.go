package local

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
)

// OperatorEnv is the set-up that outboxctl takes (docs/outboxctl.md) for this stack, as NAME=value. Where the bus is the user's own,
// its log group has to be told; without it outboxctl says what is missing.
func (s *Path) OperatorEnv() []string {
	k := s.clients
	env := []string{
		"DATABASE_URL=" + s.DatabaseURL,
		"SLOT_NAME=" + s.slot,
		"AWS_REGION=" + k.region, "AWS_ACCESS_KEY_ID=" + k.accessKeyID, "AWS_SECRET_ACCESS_KEY=" + k.secretKey,
		"STREAM_NAME=" + k.stream, "EVENT_BUS_NAME=" + k.bus, "FAILURE_QUEUE_URL=" + k.queueURL,
	}
	for _, optional := range []struct{ name, value string }{
		{"AWS_SESSION_TOKEN", k.sessionToken},
		{"BUS_LOG_GROUP", k.logGroup},
		{"DISCARD_QUEUE_URL", k.discardsURL},
		{"CONSUMER_FUNCTION", k.consumer},
		// What is not named here is not reached: the SDK would go to AWS with these credentials.
		{"AWS_ENDPOINT_URL", cmp.Or(k.local, "http://127.0.0.1:9")}, // 9: nobody listens
		{"AWS_ENDPOINT_URL_KINESIS", k.kinesisURL},
		{"AWS_ENDPOINT_URL_EVENTBRIDGE", k.eventBridgeURL},
		{"AWS_ENDPOINT_URL_SQS", k.sqsURL},
		{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", k.logsURL},
		{"METRICS_LOGS", s.metricsLogs()},
	} {
		if optional.value != "" {
			env = append(env, optional.name+"="+optional.value)
		}
	}
	return env
}

// metricsLogs are the files with the lines that CloudWatch would make metrics of: that of `make dev` itself and the relay's. Absolute:
// outboxctl may run anywhere.
func (s *Path) metricsLogs() string {
	dir, err := filepath.Abs(filepath.Dir(s.Relay.logPath))
	if err != nil {
		return ""
	}
	return strings.Join([]string{filepath.Join(dir, "dev.log"), filepath.Join(dir, filepath.Base(s.Relay.logPath))}, string(os.PathListSeparator))
}
