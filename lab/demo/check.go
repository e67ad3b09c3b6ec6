package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

// maxProblems bounds the report. The counts go on.
const maxProblems = 20

// check has what arrived judged against every row of the database and every answer of the API.
func check(ctx context.Context, databaseURL string, requests []judge.Request, arrivals *judge.Arrivals[local.Arrival]) (report, error) {
	all, firsts := arrivals.Take()
	// The subscriber may be behind the bus, because nothing waits for it.
	round := judge.Round{Requests: requests, NotCounted: true}
	for _, a := range all {
		round.Arrivals = append(round.Arrivals, a.Event)
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return report{}, fmt.Errorf("connecting to count the events: %w", err)
	}
	defer conn.Close(ctx)
	if round.Rows, err = query[judge.Row](ctx, conn, `SELECT id, aggregate_type, aggregate_id, aggregate_version AS version, event_type, event_data AS data,
		traceparent, created_at FROM outbox`); err != nil {
		return report{}, fmt.Errorf("reading outbox: %w", err)
	}
	if round.Cars, err = query[judge.Car](ctx, conn, domain.Rows); err != nil {
		return report{}, fmt.Errorf("reading cars: %w", err)
	}
	v := judge.Judge(round)
	r := report{Events: v.Events, Lost: v.Lost, Duplicates: v.Duplicates, OutOfOrder: v.Reordered, Wrong: v.Wrong, Hops: hops(firsts)}
	for _, request := range requests {
		if request.Op == judge.Create {
			r.Cars++
		} else {
			r.Updates++
		}
	}
	for _, violation := range v.Violations {
		r.problem("%s", violation.Text)
	}
	if r.Events > len(requests) { // nobody else writes, and each request may have one event
		r.Wrong++
		r.problem("the API answered %d times with success, outbox has %d rows", len(requests), r.Events)
	}
	r.Pass = r.Lost == 0 && r.OutOfOrder == 0 && r.Wrong == 0
	return r, nil
}

func query[T any](ctx context.Context, conn *pgx.Conn, sql string) ([]T, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// hops returns how long after the commit the events had passed each hop. The events of an initial load, whose commits are unknown,
// are left out.
func hops(firsts []local.Arrival) (all []hop) {
	var took [len(hopNames)][]time.Duration
	for _, a := range firsts {
		if t := a.Times; !t.Commit.IsZero() {
			for i, at := range []time.Time{t.Read, t.Stream, t.Consumer, t.Bus} {
				took[i] = append(took[i], at.Sub(t.Commit))
			}
		}
	}
	for i, name := range hopNames {
		all = append(all, hop{Hop: name, P50: percentile(took[i], 50), P99: percentile(took[i], 99)})
	}
	return all
}

func percentile(all []time.Duration, p int) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[(len(all)-1)*p/100].Microseconds()) / 1000
}
