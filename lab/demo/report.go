package demo

import (
	"encoding/json"
	"fmt"
	"io"

	"rds-outbox-demo/internal/plural"
)

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
