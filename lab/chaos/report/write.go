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
	Seed                 uint64      `json:"seed"`
	Rounds               int         `json:"rounds"`
	Started              time.Time   `json:"started"`
	Seconds              float64     `json:"seconds"`
	Machine              Machine     `json:"machine"`
	Events               int         `json:"events"`
	Lost                 int         `json:"lost"`
	Reordered            int         `json:"reordered"`
	Wrong                int         `json:"wrong"`
	Parked               int         `json:"parked"`
	Duplicates           int         `json:"duplicates"`
	DuplicatesPerMillion int         `json:"duplicatesPerMillion"`
	LongestGapMs         float64     `json:"longestGapMs"`
	HotCars              int         `json:"hotCars"`
	FaultsStruck         int         `json:"faultsStruck"`
	Faults               []kind      `json:"faults"` // by kind
	ViolationCount       int         `json:"violationCount"`
	Violations           []Violation `json:"violations"` // the first 200
	Timeline             timeline    `json:"timeline"`
}

type timeline struct {
	BucketSeconds int           `json:"bucketSeconds"`
	Arrivals      []float64     `json:"arrivalsPerSecond"`
	Commits       []float64     `json:"commitsPerSecond"`
	Faults        []faultOnTime `json:"faults"` // in the order of the rounds
}

// faultOnTime is one struck fault; times in milliseconds since started.
type faultOnTime struct {
	Kind     string   `json:"kind"`
	Round    int      `json:"round"`
	Start    float64  `json:"startMs"`
	End      float64  `json:"endMs"`
	Recovery *float64 `json:"recoveryMs,omitempty"` // after the end; absent when no event came afterwards
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	d := document{
		Seed: r.Seed, Rounds: r.Rounds, Started: r.Started.UTC(), Seconds: milliseconds(r.Duration()) / 1000, Machine: r.Machine,
		Events: r.Events, Lost: r.Lost, Reordered: r.Reordered, Wrong: r.Wrong, Parked: r.Parked,
		Duplicates: r.Duplicates, DuplicatesPerMillion: r.perMillion(), LongestGapMs: milliseconds(r.LongestGap), HotCars: r.Hot,
		FaultsStruck: len(r.strikes), Faults: r.kinds(), ViolationCount: r.ViolationCount, Violations: append([]Violation{}, r.Violations...),
		Timeline: timeline{
			BucketSeconds: r.bucketSeconds(), Arrivals: r.rates(r.arrivals), Commits: r.rates(r.commits), Faults: []faultOnTime{},
		},
	}
	for _, s := range r.strikes {
		f := faultOnTime{Kind: s.kind, Round: s.round, Start: milliseconds(s.start), End: milliseconds(s.end)}
		if s.recovered {
			recovery := milliseconds(s.recovery)
			f.Recovery = &recovery
		}
		d.Timeline.Faults = append(d.Timeline.Faults, f)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(d)
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	m := r.Machine
	fmt.Fprintf(&b, "seed %d: %s in %s, begun %s\n", r.Seed, plural.Of(r.Rounds, "round"), r.Duration().Round(time.Second), r.Started.UTC().Format(time.RFC3339))
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
