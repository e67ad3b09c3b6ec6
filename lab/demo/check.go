package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/jackc/pgx/v5"
)

// row is one row of outbox: what was committed, and so the truth that the bus is held against.
type row struct {
	ID               string
	AggregateType    string
	AggregateID      string
	AggregateVersion int64
	EventType        string
	EventData        string
	Traceparent      *string
	CreatedAt        time.Time
}

// maxProblems bounds the report; the counts go on.
const maxProblems = 20

// judge compares what arrived with every row of outbox and with what the API had answered.
func judge(ctx context.Context, databaseURL string, w written, a *arrivals) (report, error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return report{}, fmt.Errorf("connecting to count the events: %w", err)
	}
	defer conn.Close(ctx)
	r := report{Cars: w.cars, Updates: w.updates}
	a.mu.Lock()
	defer a.mu.Unlock()

	// In version order of each aggregate: first arrivals must come in that order, too.
	rows, err := conn.Query(ctx, `SELECT id::text, aggregate_type, aggregate_id, aggregate_version, event_type, event_data::text, traceparent, created_at
		FROM outbox ORDER BY aggregate_type, aggregate_id, aggregate_version`)
	if err != nil {
		return report{}, fmt.Errorf("reading outbox: %w", err)
	}
	var hops [len(hopNames)][]time.Duration
	var aggregate string
	var version int64
	place := -1
	known := 0
	var e row
	_, err = pgx.ForEachRow(rows, []any{&e.ID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.EventType, &e.EventData, &e.Traceparent, &e.CreatedAt}, func() error {
		r.Events++
		if e.AggregateID != aggregate {
			aggregate, version, place = e.AggregateID, 0, -1
		}
		if version++; e.AggregateVersion != version {
			r.problem("%s: version %d follows %d in the table", e.AggregateID, e.AggregateVersion, version-1)
		}
		got := a.byID[e.ID]
		if got == nil {
			r.Lost++
			r.problem("event %s (%s version %d) is not on the bus", e.ID, e.AggregateID, e.AggregateVersion)
			return nil
		}
		known++
		r.Duplicates += got.copies - 1
		if got.differs {
			r.Wrong++
			r.problem("event %s: a duplicate differs from the first", e.ID)
		}
		if got.place < place {
			r.OutOfOrder++
			r.problem("event %s (%s version %d) arrived before version %d", e.ID, e.AggregateID, e.AggregateVersion, version-1)
		}
		place = got.place
		if reason := e.contradicts(got.first.Entry, w); reason != "" {
			r.Wrong++
			r.problem("event %s: %s", e.ID, reason)
		}
		if t := got.first.Times; !t.Commit.IsZero() {
			for i, at := range []time.Time{t.Read, t.Stream, t.Consumer, t.Bus} {
				hops[i] = append(hops[i], at.Sub(t.Commit))
			}
		}
		return nil
	})
	if err != nil {
		return report{}, fmt.Errorf("reading outbox: %w", err)
	}
	if unknown := len(a.byID) - known; unknown > 0 {
		r.Wrong += unknown
		r.problem("%d events on the bus were never committed", unknown)
	}
	if r.Events != w.cars+w.updates {
		r.Wrong++
		r.problem("the API answered %d times with success, outbox has %d rows", w.cars+w.updates, r.Events)
	}
	for i, name := range hopNames {
		r.Hops = append(r.Hops, hop{Hop: name, P50: percentile(hops[i], 50), P99: percentile(hops[i], 99)})
	}
	r.Pass = r.Lost == 0 && r.OutOfOrder == 0 && r.Wrong == 0 && len(r.Problems) == 0
	return r, nil
}

// contradicts says how an entry differs from what its row calls for, or nothing.
func (e row) contradicts(entry types.PutEventsRequestEntry, w written) string {
	var detail map[string]json.RawMessage
	if err := json.Unmarshal([]byte(*entry.Detail), &detail); err != nil {
		return "detail is not a JSON object"
	}
	traceHeader := ""
	if e.Traceparent != nil {
		traceHeader = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1" // of write.go's traceparent
	}
	answers := w.changed[e.AggregateID]
	if e.EventType == "CarCreated" {
		answers = []json.RawMessage{w.created[e.AggregateID]}
	}
	wantTime := e.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z")
	if e.CreatedAt.Nanosecond() == 0 {
		wantTime = e.CreatedAt.UTC().Format("2006-01-02T15:04:05Z")
	}
	want := map[string]any{
		"aggregateId": e.AggregateID, "aggregateType": e.AggregateType, "aggregateVersion": e.AggregateVersion,
		"eventId": e.ID, "eventData": json.RawMessage(e.EventData), "timestamp": wantTime,
	}
	if e.Traceparent != nil {
		want["traceparent"] = *e.Traceparent
	}
	wantJSON, err := json.Marshal(want)
	switch {
	case err != nil:
		return err.Error()
	case *entry.Source != "outbox."+strings.ToLower(e.AggregateType):
		return "source is " + *entry.Source
	case *entry.DetailType != e.EventType:
		return "detail-type is " + *entry.DetailType
	case entry.Time == nil || !entry.Time.Equal(e.CreatedAt):
		return fmt.Sprintf("time is %v, the row's created_at %v", entry.Time, e.CreatedAt)
	case !sameJSON(wantJSON, []byte(*entry.Detail)):
		return fmt.Sprintf("detail is %s, not %s", *entry.Detail, wantJSON)
	case aws.ToString(entry.TraceHeader) != traceHeader:
		return fmt.Sprintf("trace header is %q, not %q", aws.ToString(entry.TraceHeader), traceHeader)
	case len(entry.Resources) != 0:
		return fmt.Sprintf("resources are %q", entry.Resources)
	case !slices.ContainsFunc(answers, func(car json.RawMessage) bool { return describes(detail["eventData"], car) }):
		return fmt.Sprintf("eventData %s is no car that the API answered with: %s", detail["eventData"], answers)
	}
	return ""
}

// describes tells whether the payload carries a car that the API answered with: the same members, id as carId. When it was changed
// only the event tells.
func describes(payload, car json.RawMessage) bool {
	var got, want map[string]any
	if json.Unmarshal(payload, &got) != nil || json.Unmarshal(car, &want) != nil {
		return false
	}
	want["carId"] = want["id"]
	delete(want, "id")
	delete(got, "updatedAt")
	delete(want, "updatedAt")
	return reflect.DeepEqual(got, want)
}

func sameJSON(a, b []byte) bool {
	decode := func(data []byte) (v any) {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		if decoder.Decode(&v) != nil {
			return nil
		}
		return v
	}
	x, y := decode(a), decode(b)
	return x != nil && reflect.DeepEqual(x, y)
}

// entryText is all that a subscriber sees of an entry, so that duplicates can be compared.
func entryText(e types.PutEventsRequestEntry) string {
	return strings.Join([]string{
		aws.ToString(e.Source), aws.ToString(e.DetailType), aws.ToString(e.Detail), e.Time.String(), aws.ToString(e.TraceHeader),
	}, "\x00")
}

func percentile(all []time.Duration, p int) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[(len(all)-1)*p/100].Microseconds()) / 1000
}
