package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
)

// maxProblems bounds the report; the counts go on.
const maxProblems = 20

// check compares what arrived with every row of outbox and with what the API had answered.
func check(ctx context.Context, databaseURL string, w written, a *arrivals) (report, error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return report{}, fmt.Errorf("connecting to count the events: %w", err)
	}
	defer conn.Close(ctx)
	r := report{Cars: w.cars, Updates: w.updates}
	a.mu.Lock()
	defer a.mu.Unlock()

	// In version order of each aggregate: first arrivals must come in that order, too.
	rows, err := conn.Query(ctx, `SELECT id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at
		FROM outbox ORDER BY aggregate_type, aggregate_id, aggregate_version`)
	if err != nil {
		return report{}, fmt.Errorf("reading outbox: %w", err)
	}
	var hops [len(hopNames)][]time.Duration
	var aggregate string
	var version int64
	place := -1
	known := 0
	var e judge.Row
	_, err = pgx.ForEachRow(rows, []any{&e.ID, &e.AggregateType, &e.AggregateID, &e.Version, &e.EventType, &e.Data, &e.Traceparent, &e.CreatedAt}, func() error {
		r.Events++
		if e.AggregateID != aggregate {
			aggregate, version, place = e.AggregateID, 0, -1
		}
		if version++; e.Version != version {
			r.problem("%s: version %d follows %d in the table", e.AggregateID, e.Version, version-1)
		}
		got := a.byID[e.ID]
		if got == nil {
			r.Lost++
			r.problem("event %s (%s version %d) is not on the bus", e.ID, e.AggregateID, e.Version)
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
			r.problem("event %s (%s version %d) arrived before version %d", e.ID, e.AggregateID, e.Version, version-1)
		}
		place = got.place
		if reason := w.contradiction(e, got.first.Entry); reason != "" {
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

// contradiction says how an entry differs from what its row calls for and the API has answered, or nothing.
func (w written) contradiction(row judge.Row, entry types.PutEventsRequestEntry) string {
	if reason := judge.Contradiction(row, onBus(entry)); reason != "" {
		return reason
	}
	answers := w.changed[row.AggregateID]
	if row.EventType == "CarCreated" {
		answers = []json.RawMessage{w.created[row.AggregateID]}
	}
	if !slices.ContainsFunc(answers, func(car json.RawMessage) bool { return judge.Describes(row.Data, car) }) {
		return fmt.Sprintf("eventData %s is no car that the API answered with: %s", row.Data, answers)
	}
	return ""
}

// onBus is what a bus shows of an accepted entry.
func onBus(e types.PutEventsRequestEntry) awslocal.BusEvent {
	return awslocal.BusEvent{
		Source: aws.ToString(e.Source), DetailType: aws.ToString(e.DetailType), Time: aws.ToTime(e.Time), Resources: e.Resources,
		TraceHeader: aws.ToString(e.TraceHeader), Detail: json.RawMessage(aws.ToString(e.Detail)),
	}
}

func percentile(all []time.Duration, p int) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[(len(all)-1)*p/100].Microseconds()) / 1000
}
