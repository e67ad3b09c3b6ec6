package cdcconsumer

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"rds-outbox-demo/internal/emf"
	"rds-outbox-demo/outbox"
)

// logBatch writes the one line per batch, which is its metrics, too. The counts published, parked, skipped and failed add up to records.
func (c *Consumer) logBatch(ctx context.Context, items []*item, took time.Duration) {
	var published, parked, skipped, failed, retried, misplaced int
	var toBus []time.Duration
	var traces []string
	kinds, known := map[outbox.Skip]int{}, map[string]bool{}
	lowest := lowestFailed(items)
	for _, it := range items {
		switch it.state {
		case statePublished:
			published++
			// What lies behind a failure comes again, and each time would seem to have taken longer.
			if !it.committed.IsZero() && !it.replayed && (lowest == nil || it.place < lowest.place) {
				toBus = append(toBus, max(0, it.published.Sub(it.committed))) // two clocks
			}
		case stateParked:
			parked++
		case stateSkipped:
			skipped++
			kinds[it.skip]++
		default:
			failed++
		}
		retried += max(0, it.sent-1)
		if it.misplaced() {
			misplaced++
		}
		if id := traceID(it); id != "" && !known[id] {
			known[id], traces = true, append(traces, id)
		}
	}
	first, last := items[0].record, items[len(items)-1].record
	metrics := []emf.Metric{{Name: "published", Unit: emf.Count}, {Name: "retried", Unit: emf.Count}, {Name: "parked", Unit: emf.Count},
		{Name: "misplaced", Unit: emf.Count}}
	attributes := []slog.Attr{
		slog.Int("hop", 5),
		slog.String("FunctionName", c.config.FunctionName),
		slog.String("shard", shardID(first)),
		slog.String("first_sequence_number", first.Kinesis.SequenceNumber),
		slog.String("last_sequence_number", last.Kinesis.SequenceNumber),
		slog.Int("records", len(items)),
		slog.Int("published", published),
		slog.Int("retried", retried),
		slog.Int("parked", parked),
		slog.Int("skipped", skipped),
		slog.Int("failed", failed),
		slog.Int("misplaced", misplaced),
		slog.Int64("duration_ms", took.Milliseconds()),
	}
	for kind, n := range kinds {
		attributes = append(attributes, slog.Int("skipped_"+strings.ReplaceAll(string(kind), "-", "_"), n))
	}
	level := slog.LevelInfo
	if lowest != nil {
		level = slog.LevelError
		attributes = append(attributes, slog.String("lowest_failed_sequence_number", lowest.record.Kinesis.SequenceNumber))
		// The lowest may be one that was not sent any more, because of others.
		why := slices.IndexFunc(items, func(it *item) bool { return !it.state.done() && it.cause != nil })
		if why >= 0 {
			attributes = append(attributes, slog.String("error", items[why].cause.Error()))
		}
	}
	// Arrays come last, because each element is a field for Logs Insights, which reads no more than 200 fields of a line
	// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html).
	if len(toBus) > 0 {
		attributes = append(attributes, slog.Any("commit_to_bus_seconds", emf.Values(toBus)))
		metrics = append(metrics, emf.Metric{Name: "commit_to_bus_seconds", Unit: emf.Seconds})
	}
	if len(traces) > 0 {
		attributes = append(attributes, slog.Any("trace_ids", traces))
	}
	attributes = append(attributes, emf.Directive(time.Now(), []string{"FunctionName"}, metrics...))
	c.config.Logger.LogAttrs(ctx, level, "batch", attributes...)
}

// traceID is the event's, "" when it has none.
func traceID(it *item) string { return outbox.TraceID(aws.ToString(it.row.Traceparent)) }
