package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
	"rds-outbox-demo/lab/process"
)

// BenchmarkGrowth invokes the program as Lambda does, with one batch of 100 after another and nothing behind it, to see that it gets
// neither slower nor larger.
func BenchmarkGrowth(b *testing.B) {
	program, batches := labtest.Program(b, "handlers/cdcconsumer/lambda", "lambda.norpc"), marshalBatches(b)
	labtest.BenchmarkGrowth(b, func(b *testing.B, n int) (took time.Duration, memory float64) {
		bus, err := sink.Start(0)
		require.NoError(b, err)
		defer bus.Close()
		command := exec.CommandContext(b.Context(), program)
		command.Stderr = os.Stderr
		command.Env = []string{
			"AWS_LAMBDA_FUNCTION_NAME=bench", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
			"AWS_ENDPOINT_URL=" + bus.URL, "EVENT_BUS_NAME=bench", "FAILURE_QUEUE_URL=" + bus.URL + "/failures",
		}
		function, err := lambdarun.Start(command)
		require.NoError(b, err)
		defer function.Close()
		var first time.Time // when the function asked for work
		for i := range n / batchSize {
			answer, err := function.Invoke(b.Context(), batches[i%len(batches)], time.Minute)
			require.NoError(b, err)
			var failures events.KinesisEventResponse
			require.NoError(b, json.Unmarshal(answer.Body, &failures), "%s", answer.Body)
			require.True(b, !answer.Failed && len(failures.BatchItemFailures) == 0, "%s", answer.Body)
			if i == 0 {
				first = answer.Asked
			}
		}
		require.EqualValues(b, n, bus.Accepted.Load())
		return time.Since(first), process.PeakMemory(function.PID())
	})
}

const batchSize = 100 // as in serverless.yml

// marshalBatches returns events of 10,000 aggregates. The consumer may get them again and again, because it keeps nothing by which it
// could know them.
func marshalBatches(b *testing.B) (batches [][]byte) {
	insert, err := os.ReadFile("../../../outbox/testdata/insert.json")
	require.NoError(b, err)
	for from := 0; from < 10_000; from += batchSize {
		var batch events.KinesisEvent
		for i := from; i < from+batchSize; i++ {
			id := fmt.Sprintf("5f0c9d4e-1b7a-4c58-9f3e-%012d", i)
			batch.Records = append(batch.Records, events.KinesisEventRecord{
				EventID: fmt.Sprintf("shardId-000000000000:4959%052d", i), EventSource: "aws:kinesis",
				EventSourceArn: "arn:aws:kinesis:us-east-1:000000000000:stream/bench", AwsRegion: "us-east-1",
				Kinesis: events.KinesisRecord{
					Data: bytes.ReplaceAll(insert, []byte("5f0c9d4e-1b7a-4c58-9f3e-6d2a8b1c4e70"), []byte(id)), PartitionKey: id,
					SequenceNumber: fmt.Sprintf("4959%052d", i), ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: time.Now()},
				},
			})
		}
		data, err := json.Marshal(batch)
		require.NoError(b, err)
		batches = append(batches, data)
	}
	return batches
}
