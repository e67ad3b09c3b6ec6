package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

// TestMain lets the tests run the program itself, which is the test binary with MAIN=1.
func TestMain(m *testing.M) {
	if os.Getenv("MAIN") == "1" {
		main()
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	t.Parallel()
	const bus, queue, region = "EVENT_BUS_NAME=bus", "FAILURE_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/0/q", "AWS_REGION=eu-west-1"
	_, aws := awstest.Start(t, awslocal.Config{Buses: []string{"bus"}})
	endpoint := "AWS_ENDPOINT_URL_EVENTBRIDGE=" + *aws.BaseEndpoint
	const keys, secret = "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local"
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"NamesAMissingBus":   {[]string{queue, region}, "EVENT_BUS_NAME is missing"},
		"NamesAMissingQueue": {[]string{bus, region}, "FAILURE_QUEUE_URL is missing"},
		"NamesABadQueue":     {[]string{bus, region, "FAILURE_QUEUE_URL=q"}, `Config.FailureQueueURL is \"q\"`},
		// PutEvents would answer with success, and every event would be gone.
		"RefusesAnUnknownBus": {[]string{"EVENT_BUS_NAME=typo", queue, region, endpoint, keys, secret}, "looking for event bus typo"},
		// The error comes from the Lambda runtime, so everything before it went well.
		"StartsInLambdaOnly": {[]string{bus, queue, region, endpoint, keys, secret}, "expected AWS Lambda environment variables"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0])
			command.Env = append(test.env, "MAIN=1")
			var output bytes.Buffer
			command.Stdout, command.Stderr = &output, &output
			var exit *exec.ExitError
			require.ErrorAs(t, command.Run(), &exit)
			require.Equal(t, 1, exit.ExitCode())
			require.Contains(t, output.String(), test.want)
		})
	}
}
