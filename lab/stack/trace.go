package stack

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/google/uuid"

	"rds-outbox-demo/outbox"
)

// Arrival is one event that the bus accepted.
type Arrival struct {
	Entry   types.PutEventsRequestEntry
	EventID uuid.UUID
	Times   Times
}

// Times are when an event passed its hops; all but Bus are zero when they are not known.
type Times struct {
	Commit   time.Time // ② by the server's clock
	Read     time.Time // ③ the relay read it from the WAL
	Stream   time.Time // ④ Kinesis took it; milliseconds
	Consumer time.Time // ⑤ the consumer was called with it: the wait for the next poll is in between
	Bus      time.Time // ⑥ PutEvents accepted it
}

// tracker sees batches on their way to the consumer and entries that the bus accepted, and joins the two by event id. It
// stands outside the path: nothing of it runs on AWS.
type tracker struct {
	onEvent func(Arrival)

	mu       sync.Mutex
	invoked  map[uuid.UUID]Times
	oldest   []uuid.UUID // bounds invoked: events that never arrive, and duplicates
	reported sync.Mutex  // one call of onEvent at a time
}

const maxTracked = 100_000

func newTracker(onEvent func(Arrival)) *tracker {
	return &tracker{onEvent: onEvent, invoked: map[uuid.UUID]Times{}}
}

// handler is what Lambda calls.
type handler func(context.Context, events.KinesisEvent) (events.KinesisEventResponse, error)

// watch notes the times that a batch carries before it hands the batch on.
func (t *tracker) watch(next handler) handler {
	return func(ctx context.Context, batch events.KinesisEvent) (events.KinesisEventResponse, error) {
		now := time.Now()
		for _, r := range batch.Records {
			record, skip, err := outbox.ParseRecord(r.Kinesis.Data)
			if err != nil || skip != outbox.SkipNothing {
				continue // the consumer's business
			}
			times := Times{Commit: record.Commit.Time, Read: record.Timestamp, Stream: r.Kinesis.ApproximateArrivalTimestamp.Time, Consumer: now}
			if times.Stream.Before(times.Read) {
				times.Stream = times.Read // cut to milliseconds
			}
			t.note(record.Row.ID, times)
		}
		return next(ctx, batch)
	}
}

func (t *tracker) note(id uuid.UUID, times Times) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.invoked[id]; !known {
		t.oldest = append(t.oldest, id)
	}
	t.invoked[id] = times
	if len(t.oldest) > maxTracked {
		delete(t.invoked, t.oldest[0])
		t.oldest = t.oldest[1:]
	}
}

func (t *tracker) times(id uuid.UUID) Times {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.invoked[id]
}

// watchedBus reports each entry that the bus accepted.
type watchedBus struct {
	*eventbridge.Client
	tracker *tracker
}

func (b watchedBus) PutEvents(ctx context.Context, in *eventbridge.PutEventsInput, options ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	out, err := b.Client.PutEvents(ctx, in, options...)
	now := time.Now()
	if err != nil {
		return out, err
	}
	b.tracker.reported.Lock()
	defer b.tracker.reported.Unlock()
	for i, result := range out.Entries {
		if result.EventId == nil || i >= len(in.Entries) {
			continue
		}
		var detail struct {
			EventID uuid.UUID `json:"eventId"`
		}
		if json.Unmarshal([]byte(*in.Entries[i].Detail), &detail) != nil {
			continue // not an entry of ours
		}
		times := b.tracker.times(detail.EventID)
		times.Bus = now
		b.tracker.onEvent(Arrival{Entry: in.Entries[i], EventID: detail.EventID, Times: times})
	}
	return out, nil
}
