package cdcconsumer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
)

// instantBus accepts everything at once, without HTTP and JSON, so that only our own work is
// measured.
type instantBus struct{ answer []types.PutEventsResultEntry }

func (b instantBus) PutEvents(_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	return &eventbridge.PutEventsOutput{Entries: b.answer[:len(in.Entries)]}, nil
}

func (instantBus) DescribeEventBus(context.Context, *eventbridge.DescribeEventBusInput, ...func(*eventbridge.Options)) (*eventbridge.DescribeEventBusOutput, error) {
	return &eventbridge.DescribeEventBusOutput{}, nil
}

func newInstant(b *testing.B) *Consumer {
	bundle := newBundle(b, Config{})
	bundle.consumer.config.EventBridge = instantBus{make([]types.PutEventsResultEntry, maxEntries)}
	for i := range maxEntries {
		bundle.consumer.config.EventBridge.(instantBus).answer[i].EventId = aws.String("11710aed-b79e-4468-a20b-bb3c0c3b4860")
	}
	bundle.consumer.config.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil))
	return bundle.consumer
}

// cars are records of so many aggregates in turn, as the API's events are.
func cars(records, aggregates int) (all [][]byte) {
	for i := range records {
		event := row(fmt.Sprintf("0199fa3c-7b5e-7a01-9c3d-%012d", i%aggregates), int64(i/aggregates+1))
		event.EventData = []byte(`{"make": "Toyota", "year": 2023, "carId": "0199fa3c-7b5e-7a01-9c3d-5e6f70819203", "color": null, "model": "Camry", "createdAt": "2026-11-23T09:15:00.123456Z"}`)
		event.Traceparent = aws.String("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		all = append(all, record(event))
	}
	return all
}

func decoded(b *testing.B, c *Consumer, event events.KinesisEvent) []*item {
	items := newItems(event.Records)
	for _, it := range items {
		if err := c.decodeItem(b.Context(), it); err != nil || it.state != stateEvent {
			b.Fatal(err, it.message)
		}
	}
	return items
}

func BenchmarkDecode(b *testing.B) {
	consumer, event := newInstant(b), batch(cars(1000, 1000)...)
	defer labtest.AllocsAtMost(b, 60_000)()
	for b.Loop() {
		decoded(b, consumer, event)
	}
	perRecord(b, 1000)
}

func BenchmarkNewEntry(b *testing.B) {
	record, _, err := outbox.ParseRecord(cars(1, 1)[0])
	require.NoError(b, err)
	defer labtest.AllocsAtMost(b, 20)()
	for b.Loop() {
		if _, err := newEntry("OutboxEventBus", record); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPublish measures the entries, the queue and the lanes. One aggregate needs a call for each event, many aggregates fill the calls.
func BenchmarkPublish(b *testing.B) {
	for _, aggregates := range []int{1, 30, 1000} {
		b.Run(fmt.Sprintf("Aggregates=%d", aggregates), func(b *testing.B) {
			consumer, event := newInstant(b), batch(cars(1000, aggregates)...)
			parsed := map[*byte]outbox.Record{}
			for _, r := range event.Records {
				record, _, err := outbox.ParseRecord(r.Kinesis.Data)
				require.NoError(b, err)
				parsed[&r.Kinesis.Data[0]] = record
			}
			consumer.parse = func(data []byte) (outbox.Record, outbox.Skip, error) {
				return parsed[&data[0]], outbox.SkipNothing, nil
			}
			b.ReportAllocs()
			if aggregates == 1000 {
				defer labtest.AllocsAtMost(b, 24_000)()
			}
			for b.Loop() {
				items := newItems(event.Records)
				consumer.publish(b.Context(), items, time.Now().Add(time.Minute))
				if lowest := lowestFailed(items); lowest != nil {
					b.Fatal(lowest.cause)
				}
			}
			perRecord(b, 1000)
		})
	}
}

// BenchmarkLogBatch is the batch's line, of 1,000 traces.
func BenchmarkLogBatch(b *testing.B) {
	consumer := newInstant(b)
	items := decoded(b, consumer, batch(cars(1000, 1000)...))
	for i, it := range items {
		it.row.Traceparent = aws.String(fmt.Sprintf("00-4bf92f3577b34da6a3ce%012d-00f067aa0ba902b7-01", i))
	}
	b.ReportAllocs()
	for b.Loop() {
		consumer.logBatch(b.Context(), items, time.Second)
	}
	perRecord(b, 1000)
}

func perRecord(b *testing.B, records int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records), "ns/record")
}

func BenchmarkHandle(b *testing.B) {
	records := make([][]byte, 1000)
	for i := range records {
		records[i] = car(fmt.Sprintf("a%04d", i), 1)
	}
	for name, roundTrip := range map[string]time.Duration{"Immediate": 0, "TenMilliseconds": 10 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			bundle := newBundle(b, Config{})
			bundle.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				time.Sleep(roundTrip)
				return acceptAll(entries), nil
			}
			for b.Loop() {
				bundle.calls = nil
				require.Equal(b, -1, bundle.handle(b, time.Minute, batch(records...)))
			}
			b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

const hotRoundTrip = 10 * time.Millisecond

// publishHot publishes n events of one aggregate, 10 ms a call. It returns what that took, and what the calls took of it.
func publishHot(tb testing.TB, n int) (took, calls time.Duration) {
	bundle := newBundle(tb, Config{})
	bundle.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
		started := time.Now()
		time.Sleep(hotRoundTrip)
		calls += time.Since(started) // no lock, because rule 4 allows one call of an aggregate at a time
		return acceptAll(entries), nil
	}
	started := time.Now()
	require.Equal(tb, -1, bundle.handle(tb, time.Hour, batch(cars(n, 1)...)))
	return time.Since(started), calls
}

// Rule 4 allows one unanswered event of an aggregate, so a hot one takes a round trip an event, and no more.
func TestAHotAggregateTakesOneRoundTripAnEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		took, _ := publishHot(t, 1000)
		require.Equal(t, 1000*hotRoundTrip, took)
	})
}

// BenchmarkHotAggregate publishes the events of one aggregate, 10 ms a call. The limit is one call after another.
func BenchmarkHotAggregate(b *testing.B) {
	took, calls := publishHot(b, b.N)
	b.ReportMetric(float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/calls.Seconds(), "limit-events/s")
}
