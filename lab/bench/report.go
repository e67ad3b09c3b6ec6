package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

// Report is the result of a run.
type Report struct {
	Started    time.Time `json:"started"`
	Machine    string    `json:"machine"`
	Go         string    `json:"go"`
	PostgreSQL string    `json:"postgresql"`
	Commit     string    `json:"commit,omitempty"`
	Rounds     int       `json:"rounds"`
	Quick      bool      `json:"quick,omitempty"`
	Rows       []Row     `json:"rows"`
}

// Row is one comparison.
type Row struct {
	Hop  string `json:"hop"`
	What string `json:"what"`
	Unit string `json:"unit"` // of Ours and Limit
	Ours Values `json:"ours"`
	// Limit is what Ours is compared with. It is empty when there is nothing to compare with, or it
	// could not be measured.
	Limit     Values `json:"limit,omitempty"`
	LimitName string `json:"limitName,omitempty"`
	// Target is what Reached judges, in words. It is empty for a figure without a target.
	Target  string `json:"target,omitempty"`
	Reached bool   `json:"reached,omitempty"`
	// Bound is what CI lets pass, far from any target. It is the least ratio of a row with a limit,
	// and the largest figure of any other row. 0 means none.
	Bound float64 `json:"bound,omitempty"`
	// Missing says why there is no comparison.
	Missing string `json:"missing,omitempty"`
	// Noisy rows are not judged, because Ours or Limit spread by more than noise.
	Noisy bool `json:"noisy,omitempty"`
}

// Ratio returns the ratio of the medians, or 0 without a limit.
func (r Row) Ratio() float64 {
	if limit := r.Limit.Median(); limit > 0 {
		return r.Ours.Median() / limit
	}
	return 0
}

// atLeast sets the target that Ours is at least ratio times Limit.
func (r Row) atLeast(ratio float64) Row {
	r.Target, r.Reached = fmt.Sprintf(">= %.2f x %s", ratio, r.LimitName), r.Ratio() >= ratio
	return r
}

// atMost sets the target that Ours is at most value, in the row's unit.
func (r Row) atMost(value float64) Row {
	r.Target, r.Reached = fmt.Sprintf("<= %g %s", value, r.Unit), r.Ours.Median() <= value
	return r
}

// bounded sets the bound.
func (r Row) bounded(bound float64) Row {
	r.Bound = bound
	return r
}

func (e *environment) newReport(ctx context.Context) (*Report, error) {
	r := &Report{
		Started: time.Now().UTC().Truncate(time.Second), Machine: fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH),
		Go: runtime.Version(), Rounds: e.Rounds, Quick: e.Quick,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				r.Commit = setting.Value[:min(len(setting.Value), 12)]
			}
		}
	}
	conn, err := pgx.Connect(ctx, e.server.URL())
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return r, conn.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&r.PostgreSQL)
}

// Text writes the table.
func (r *Report) Text(w io.Writer) error {
	fmt.Fprintf(w, "%s · %s · %s · PostgreSQL %s · medians of %d rounds", r.Started.Format(time.RFC3339), r.Machine, r.Go, r.PostgreSQL, r.Rounds)
	if r.Quick {
		fmt.Fprint(w, " · quick: rough figures")
	}
	fmt.Fprint(w, "\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOP\tWHAT\tOURS\tLIMIT\tRATIO\tTARGET\t")
	for _, row := range r.Rows {
		limit, ratio, target := "-", "-", "-"
		if len(row.Limit) > 0 {
			limit, ratio = figure(row.Limit.Median(), row.Unit)+" ("+row.LimitName+")", fmt.Sprintf("%.2f", row.Ratio())
		}
		if row.Target != "" {
			target = map[bool]string{true: "reached", false: "MISSED"}[row.Reached] + ": " + row.Target
		}
		if row.Noisy {
			ratio, target = "-", row.notJudged()
		}
		if row.Missing != "" {
			limit, target = "not measured: "+row.Missing, "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s ±%.0f %%\t%s\t%s\t%s\t\n", row.Hop, row.What, figure(row.Ours.Median(), row.Unit), 100*row.Ours.Spread(), limit, ratio, target)
	}
	return table.Flush()
}

// figure formats a number with its thousands apart, and without digits that mean nothing.
func figure(value float64, unit string) string {
	if value >= 1000 {
		digits := fmt.Sprintf("%.0f", value)
		var parts []string
		for len(digits) > 3 {
			parts = append([]string{digits[len(digits)-3:]}, parts...)
			digits = digits[:len(digits)-3]
		}
		return strings.Join(append([]string{digits}, parts...), ",") + " " + unit
	}
	return fmt.Sprintf("%.3g %s", value, unit)
}

// JSON writes the report with every round's value.
func (r *Report) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
