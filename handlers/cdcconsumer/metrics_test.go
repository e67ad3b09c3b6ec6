package cdcconsumer

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// committed makes a record of one committed so long before now.
func committed(t *testing.T, aggregateID string, version int64, ago time.Duration, traceparent string) []byte {
	t.Helper()
	r := outbox.Record{Row: row(aggregateID, version), Operation: outbox.OperationInsert, Timestamp: time.Now()}
	r.Commit.Time = time.Now().Add(-ago)
	if traceparent != "" {
		r.Row.Traceparent = aws.String(traceparent)
	}
	data, err := r.AppendJSON(nil)
	require.NoError(t, err)
	return data
}

// metricsOf reads a line as CloudWatch does. The members that _aws names must be there, as numbers.
func metricsOf(t *testing.T, line map[string]any) map[string]any {
	t.Helper()
	directives := line["_aws"].(map[string]any)["CloudWatchMetrics"].([]any)
	require.Len(t, directives, 1)
	directive := directives[0].(map[string]any)
	require.Equal(t, "rds-outbox-demo", directive["Namespace"])
	require.Equal(t, []any{[]any{"FunctionName"}}, directive["Dimensions"])
	require.Equal(t, "cdcConsumer", line["FunctionName"])
	metrics := map[string]any{}
	for _, metric := range directive["Metrics"].([]any) {
		name := metric.(map[string]any)["Name"].(string)
		require.Contains(t, line, name)
		metrics[name] = line[name]
	}
	return metrics
}

// What the relay's configuration says of the partition key is believed nowhere.
func TestMisplaced(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bundle) {
		event := batch(car("a", 1), car("b", 1), car("b", 2), control)
		for i, key := range []string{"a", "b", "a", "x"} {
			event.Records[i].Kinesis.PartitionKey = key
		}
		require.Equal(t, -1, b.handle(t, time.Minute, event))
		require.InDelta(t, 1.0, metricsOf(t, b.batchLine(t))["misplaced"], 0)
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	t.Run("OfAWholeBatch", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
				time.Sleep(time.Second) // the bubble's time
				if call == 1 {
					return results("ThrottlingException", "", "", ""), nil
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(
				committed(t, "a", 1, time.Second, trace),
				committed(t, "b", 1, 2*time.Second, trace),
				committed(t, "c", 1, -time.Hour, "00-0000000000000000000000000000000f-00f067aa0ba902b7-00"),
				[]byte("poison"), control, car("d", 1))))
			line := b.batchLine(t)
			require.Equal(t, []string{"commit_to_bus_seconds", "misplaced", "parked", "published", "retried"}, slices.Sorted(maps.Keys(metricsOf(t, line))))
			seconds := line["commit_to_bus_seconds"].([]any)
			require.Len(t, seconds, 3, "d was not committed that we know of")
			require.InDelta(t, 0.0, seconds[0], 0, "by two clocks it took less than nothing")
			require.InDelta(t, 3.0, seconds[1], 0)
			require.InDelta(t, 3.1, seconds[2], 0.051, "with its retry")
			require.Equal(t, []any{"4bf92f3577b34da6a3ce929d0e0e4736", "0000000000000000000000000000000f"}, line["trace_ids"])
			require.InDelta(t, 4.0, line["published"], 0)
			require.InDelta(t, 1.0, line["retried"], 0)
			require.InDelta(t, 1.0, line["parked"], 0)
			require.InDelta(t, 4.0, line["misplaced"], 0, "their keys are key-0 to key-5")
			require.Regexp(t, `"msg":"parked".*"event_id":"","trace_id":""`, b.log.String())
		})
	})
	t.Run("OfABatchThatComesAgain", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				codes := make([]string, len(entries))
				for i, e := range entries {
					if e.detail().AggregateID == "b" {
						codes[i] = "InternalFailure"
					}
				}
				return results(codes...), nil
			}
			replayed, err := outbox.Record{
				Row: row("d", 1), Operation: outbox.OperationInsert, Commit: outbox.Commit{Time: time.Now()}, Replay: "id-1",
			}.AppendJSON(nil)
			require.NoError(t, err)
			require.Equal(t, 2, b.handle(t, 20*time.Second, batch(
				committed(t, "a", 1, time.Second, ""), replayed, committed(t, "b", 1, time.Second, ""), committed(t, "c", 1, time.Second, ""))))
			line := b.batchLine(t)
			require.InDelta(t, 3.0, line["published"], 0)
			require.Len(t, line["commit_to_bus_seconds"], 1, "neither the replayed one, nor c, which comes again")
		})
	})
	t.Run("LeaveOutWhatHasNoValue", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			require.Equal(t, -1, b.handle(t, time.Minute, batch(control)))
			line := b.batchLine(t)
			require.Equal(t, []string{"misplaced", "parked", "published", "retried"}, slices.Sorted(maps.Keys(metricsOf(t, line))))
			require.NotContains(t, line, "trace_ids")
		})
	})
}
