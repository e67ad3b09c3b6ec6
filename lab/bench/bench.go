// Package bench measures every hop of the path against its limit, in one run on one machine (`make
// bench`). It measures ours and the limit in turns, A B A B, because a machine that is busy in one
// minute is idle in the next. It compares medians of several rounds.
//
// In: the built programs, a throw-away PostgreSQL, and pgbench and pg_recvlogical where they are
// installed. Out: a table with ratios, and the same as JSON and as a chart. This is not a test. A
// figure that misses its target is a row that says so.
//
// No other program can be compared on cold start, hot aggregates, growth and allocations. They are
// Go benchmarks in the packages that they measure, and `make bench` runs them, too.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"rds-outbox-demo/lab/postgres"
)

// Config of a run. All but Hop is required.
type Config struct {
	Dir    string // scratch folder, removed by the caller
	Root   string // of the checkout
	Rounds int    // of each comparison
	Hop    string // the one hop to measure; empty for all
	// Quick does a fraction of the work. Figures are rough then, but ratios still show which hop
	// got much worse.
	Quick bool
	// Check measures a hop again if it is beyond its bounds or too noisy to judge, because the
	// machine may have been busy.
	Check    bool
	Progress io.Writer
}

// hop measures one hop of the path.
type hop struct {
	name string // as HOP= takes it
	run  func(context.Context, *environment) ([]Row, error)
}

// hops are in the order of the path. The last one is the whole path.
var hops = []hop{{"api", api}, {"relay", relay}, {"consumer", consumer}, {"path", path}}

// Run measures and returns the report. It returns an error if a measurement could not be made, but
// not for a missed target.
func Run(ctx context.Context, c Config) (_ *Report, err error) {
	if c.Hop != "" && !slices.ContainsFunc(hops, func(h hop) bool { return h.name == c.Hop }) {
		return nil, fmt.Errorf("HOP is %q: one of api, coldstart, relay, consumer, hot, path, growth, allocs", c.Hop)
	}
	e, err := newEnvironment(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.server.Stop(context.WithoutCancel(ctx))) }()
	report, err := e.newReport(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range hops {
		if c.Hop != "" && c.Hop != h.name {
			continue
		}
		started := time.Now()
		rows, err := e.measureUntilJudged(ctx, h)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", h.name, err)
		}
		report.Rows = append(report.Rows, rows...)
		e.progress("%s: %s", h.name, time.Since(started).Round(time.Second))
	}
	return report, nil
}

// measureUntilJudged measures a hop until its rows can be judged, and returns the rows of the last
// attempt.
func (e *environment) measureUntilJudged(ctx context.Context, h hop) ([]Row, error) {
	for attempt := 1; ; attempt++ {
		rows, err := h.run(ctx, e)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			rows[i].Hop = h.name
			rows[i] = rows[i].judged()
		}
		judged := Report{Rows: rows}
		lines := slices.Concat(judged.Worse(), judged.Open())
		if !e.Check || attempt == attempts || len(lines) == 0 {
			return rows, nil
		}
		e.progress("once more: %s", strings.Join(lines, "; "))
	}
}

// environment is what the hops share.
type environment struct {
	Config
	server *postgres.Server
	tools  tools
}

func newEnvironment(ctx context.Context, c Config) (*environment, error) {
	binaries, err := postgres.FindBinaries(c.Root)
	if err != nil {
		return nil, err
	}
	server, err := postgres.Start(ctx, postgres.Config{
		Dir: c.Dir + "/postgres", Binaries: binaries,
		Settings: map[string]string{
			"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", // no checkpoint in a round
			"max_replication_slots": "50", "max_wal_senders": "20",
		},
	})
	if err != nil {
		return nil, err
	}
	return &environment{Config: c, server: server, tools: findTools()}, nil
}

func (e *environment) progress(format string, args ...any) {
	fmt.Fprintf(e.Progress, "bench: "+format+"\n", args...)
}

// size returns n, or a fraction of it when the run is quick.
func (e *environment) size(n int) int {
	if e.Quick {
		return n / 10
	}
	return n
}

// measurement does the work of a round in one way. It returns operations a second, or seconds.
type measurement func(context.Context) (float64, error)

// alternate runs the measurements in turns, and returns the values of each. The first round warms
// up and is not counted.
func (e *environment) alternate(ctx context.Context, measurements ...measurement) ([]Values, error) {
	values := make([]Values, len(measurements))
	for round := range e.Rounds + 1 {
		for i, measure := range measurements {
			value, err := measure(ctx)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				values[i] = append(values[i], value)
			}
		}
	}
	return values, nil
}

// Values of one measurement, one a round.
type Values []float64

// Median returns the middle value, and of an even number the lower of the two, so that it is a
// value that was measured.
func (v Values) Median() float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[(len(sorted)-1)/2]
}

// medians returns the median of each n values in turn.
func (v Values) medians(n int) (medians Values) {
	for turn := range slices.Chunk(v, n) {
		medians = append(medians, turn.Median())
	}
	return medians
}

// Spread returns the largest distance from the median, as a part of the median.
func (v Values) Spread() float64 {
	median := v.Median()
	if median == 0 {
		return 0
	}
	return max(slices.Max(v)-median, median-slices.Min(v)) / median
}
