package local

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// Arrival is one event that the bus accepted.
type Arrival struct {
	Event   awslocal.BusEvent
	EventID uuid.UUID
	Times   Times
}

// Times are when an event passed its hops. All but Bus are zero when they are not known.
type Times struct {
	Commit   time.Time // ② by the server's clock
	Read     time.Time // ③ the relay read it from the WAL
	Stream   time.Time // ④ Kinesis took it; milliseconds
	Consumer time.Time // ⑤ the consumer was called with it: the wait for the next poll is in between
	Bus      time.Time // ⑥ PutEvents accepted it
}

// tracker sees batches on their way to the consumer and entries that the bus accepted, and joins
// the two by event id. It is not a part of the path and does not run on AWS.
type tracker struct {
	onEvent  func(Arrival)
	observer *Observer
	reported sync.Mutex // one call of onEvent at a time
}

// batchTimes is the key of a batch's Times by event id, in the context of its invocation.
type batchTimes struct{}

func newTracker(onEvent func(Arrival), observer *Observer) *tracker {
	if observer == nil {
		observer = &Observer{Invoked: func(Batch) {}, Returned: func(Batch) {}, Putting: func(int) {}, Accepted: func(awslocal.BusEvent) {}, Put: func(Put) {}}
	}
	return &tracker{onEvent: onEvent, observer: observer}
}

// handler is what Lambda calls.
type handler func(context.Context, events.KinesisEvent) (events.KinesisEventResponse, error)

// watch hands a batch on, with the times of its records in the context.
func (t *tracker) watch(next handler) handler {
	return func(ctx context.Context, batch events.KinesisEvent) (events.KinesisEventResponse, error) {
		all := map[uuid.UUID]Times{}
		seen := Batch{At: time.Now(), Records: make([]BatchRecord, len(batch.Records))}
		for i, r := range batch.Records {
			seen.Records[i] = BatchRecord{SequenceNumber: r.Kinesis.SequenceNumber, Arrival: r.Kinesis.ApproximateArrivalTimestamp.Time, Data: r.Kinesis.Data}
			seen.Shard, _, _ = strings.Cut(r.EventID, ":")
			record, skip, err := outbox.ParseRecord(r.Kinesis.Data)
			if err != nil || skip != outbox.SkipNothing {
				continue // the consumer's business
			}
			seen.Records[i].Event = &record
			times := Times{Commit: record.Commit.Time, Read: record.Timestamp, Stream: seen.Records[i].Arrival, Consumer: seen.At}
			if times.Stream.Before(times.Read) {
				times.Stream = times.Read // cut to milliseconds
			}
			all[record.Row.ID] = times
		}
		if lambda, ok := lambdacontext.FromContext(ctx); ok {
			seen.Invocation = lambda.AwsRequestID
		}
		t.observer.Invoked(seen)
		response, err := next(context.WithValue(ctx, batchTimes{}, all), batch)
		seen.Took, seen.Err, seen.Failed = time.Since(seen.At), err, len(seen.Records)
		switch {
		case err != nil:
			seen.Failed = 0
		case len(response.BatchItemFailures) > 0:
			lowest := response.BatchItemFailures[0].ItemIdentifier // the consumer names one
			seen.Failed = max(0, slices.IndexFunc(seen.Records, func(r BatchRecord) bool { return r.SequenceNumber == lowest }))
		}
		t.observer.Returned(seen)
		return response, err
	}
}

// watchedBus reports each entry that the bus accepted.
type watchedBus struct {
	*eventbridge.Client
	tracker *tracker
	local   bool // the bus itself tells what it has accepted, also in calls that got no answer
}

func (b watchedBus) PutEvents(ctx context.Context, in *eventbridge.PutEventsInput, options ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	observer := b.tracker.observer
	observer.Putting(len(in.Entries))
	out, err := b.Client.PutEvents(ctx, in, options...)
	put := Put{At: time.Now(), Entries: make([]PutEntry, len(in.Entries))}
	for i, entry := range in.Entries {
		result := PutEntry{Event: awslocal.BusEvent{
			Bus: aws.ToString(entry.EventBusName), Accepted: put.At, Source: aws.ToString(entry.Source), DetailType: aws.ToString(entry.DetailType),
			Time: aws.ToTime(entry.Time), Resources: entry.Resources, TraceHeader: aws.ToString(entry.TraceHeader), Detail: json.RawMessage(aws.ToString(entry.Detail)),
		}}
		var detail struct {
			EventID uuid.UUID `json:"eventId"`
		}
		if json.Unmarshal(result.Event.Detail, &detail) == nil {
			result.EventID = detail.EventID
		}
		switch {
		case err != nil:
			result.Code, result.Message = callCode(err), err.Error()
		case i < len(out.Entries):
			answer := out.Entries[i]
			result.Event.ID, result.Code, result.Message = aws.ToString(answer.EventId), aws.ToString(answer.ErrorCode), aws.ToString(answer.ErrorMessage)
		}
		put.Entries[i] = result
	}
	// The observer hears it before the consumer does. So the observer knows what became of the
	// events of a batch when it hears that the batch has returned.
	observer.Put(put)
	for _, entry := range put.Entries {
		if !b.local && entry.Accepted() {
			observer.Accepted(entry.Event)
		}
	}
	all, _ := ctx.Value(batchTimes{}).(map[uuid.UUID]Times)
	b.tracker.report(put, all)
	return out, err
}

func (t *tracker) report(put Put, all map[uuid.UUID]Times) {
	t.reported.Lock()
	defer t.reported.Unlock()
	for _, entry := range put.Entries {
		if !entry.Accepted() || entry.EventID == uuid.Nil {
			continue
		}
		times := all[entry.EventID]
		times.Bus = put.At
		t.onEvent(Arrival{Event: entry.Event, EventID: entry.EventID, Times: times})
	}
}

// callCode names why a whole call failed.
func callCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return "NoAnswer"
}
