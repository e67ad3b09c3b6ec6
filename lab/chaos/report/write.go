package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/lab/judge"
)

// document is the JSON.
type document struct {
	*Report
	Seconds              float64  `json:"seconds"`
	DuplicatesPerMillion int      `json:"duplicatesPerMillion"`
	LongestGapMs         float64  `json:"longestGapMs"`
	FaultsStruck         int      `json:"faultsStruck"`
	Faults               []kind   `json:"faults"` // by kind
	Timeline             timeline `json:"timeline"`
}

type timeline struct {
	BucketSeconds int       `json:"bucketSeconds"`
	Arrivals      []float64 `json:"arrivalsPerSecond"`
	Commits       []float64 `json:"commitsPerSecond"`
	Faults        []strike  `json:"faults"` // in the order of the rounds
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(document{
		Report: r, Seconds: milliseconds(r.Duration()) / 1000, DuplicatesPerMillion: r.perMillion(), LongestGapMs: milliseconds(r.LongestGap),
		FaultsStruck: len(r.strikes), Faults: r.kinds(),
		Timeline: timeline{BucketSeconds: r.bucketSeconds(), Arrivals: r.rates(r.arrivals), Commits: r.rates(r.commits), Faults: r.strikes},
	})
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	m := r.Machine
	fmt.Fprintf(&b, "seed %d: %s in %s, begun %s\n", r.Seed, plural.Of(r.Rounds, "round"), r.Duration().Round(time.Second), r.Started.Format(time.RFC3339))
	fmt.Fprintf(&b, "%d cores, %s/%s, %s, PostgreSQL %s\n\n", m.Cores, m.OS, m.Arch, m.Go, m.PostgreSQL)
	for _, row := range []struct {
		name  string
		value any
	}{
		{"events", r.Events}, {"lost", r.Lost}, {"reordered", r.Reordered}, {"wrong", r.Wrong}, {"poison parked", r.Parked},
		{"duplicates", r.Duplicates}, {"duplicates per million", r.perMillion()},
		{"longest gap", fmt.Sprintf("%.1f s", r.LongestGap.Seconds())},
		{fmt.Sprintf("cars with %d in flight", judge.MinInFlight), r.Hot},
	} {
		fmt.Fprintf(&b, "  %-30s %10v\n", row.name, row.value)
	}
	if r.Promotions > 0 {
		fmt.Fprintf(&b, "  %-30s %10d\n  %-30s %10d\n", "promotions", r.Promotions, "duplicates of a round at most", r.MostDuplicates)
	}
	fmt.Fprintf(&b, "\n  %-30s %10s %16s %16s\n", "faults", "struck", "recovery p50", "max")
	for _, k := range r.kinds() {
		p50, most := "-", "-"
		if k.P50 != nil {
			p50, most = fmt.Sprintf("%.0f ms", *k.P50), fmt.Sprintf("%.0f ms", *k.Max)
		}
		fmt.Fprintf(&b, "  %-30s %10d %16s %16s\n", k.Kind, k.Struck, p50, most)
	}
	fmt.Fprintf(&b, "  %-30s %10d\n", "all", len(r.strikes))
	if r.ViolationCount > 0 {
		fmt.Fprintf(&b, "\n%s\n", plural.Of(r.ViolationCount, "violation"))
		shown := r.Violations[:min(len(r.Violations), maxTextViolations)]
		for _, v := range shown {
			fmt.Fprintf(&b, "  round %d: %s: %s\n", v.Round, v.Rule, v.Text)
		}
		if more := r.ViolationCount - len(shown); more > 0 {
			fmt.Fprintf(&b, "  and %d more\n", more)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
