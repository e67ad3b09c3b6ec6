package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/plural"
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

// report is the verdict. Its JSON is what JSON=1 prints.
type report struct {
	Pass       bool     `json:"pass"`
	Cars       int      `json:"cars"`
	Updates    int      `json:"updates"`
	Events     int      `json:"events"` // rows of outbox
	Lost       int      `json:"lost"`
	Duplicates int      `json:"duplicates"`
	OutOfOrder int      `json:"outOfOrder"`
	Wrong      int      `json:"wrong"` // id, content or contract
	Hops       []hop    `json:"hops"`
	Problems   []string `json:"problems,omitempty"`
}

// hop is the time from an event's commit until it had passed a hop, in milliseconds.
type hop struct {
	Hop string  `json:"hop"`
	P50 float64 `json:"p50Ms"`
	P99 float64 `json:"p99Ms"`
}

var hopNames = [...]string{"③ WAL", "④ stream", "⑤ consumer", "⑥ bus"}

func (r *report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	verdict := "pass"
	if !r.Pass {
		verdict = "FAIL"
	}
	for _, problem := range r.Problems {
		fmt.Fprintln(w, "  "+problem)
	}
	fmt.Fprintf(w, "\ntime since commit      p50         p99\n")
	for _, h := range r.Hops {
		fmt.Fprintf(w, "  %-12s %8.1f ms %8.1f ms\n", h.Hop, h.P50, h.P99)
	}
	_, err := fmt.Fprintf(w, "\ndemo: %s: %s, %s: %s, %d lost, %s, %d out of order, %d wrong\n",
		verdict, plural.Of(r.Cars, "car"), plural.Of(r.Updates, "change"), plural.Of(r.Events, "event"), r.Lost, plural.Of(r.Duplicates, "duplicate"), r.OutOfOrder, r.Wrong)
	return err
}
