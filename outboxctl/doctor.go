package outboxctl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/internal/plural"
)

// state of a check.
type state string

const (
	stateOK   state = "ok"
	stateWarn state = "warn"
	stateFail state = "FAIL"
	stateSkip state = "skip"
)

// check is one line of the doctor's screen.
type check struct {
	Name    string `json:"name"`
	State   state  `json:"state"`
	Finding string `json:"finding"`
	Do      string `json:"do,omitempty"`
}

// broken is a check that could not be made.
func broken(name string, err error) check {
	return check{name, stateFail, err.Error(), "see that this can be looked at from here: address, name, permissions"}
}

// doctor looks at a set-up and changes nothing.
type doctor struct {
	*Setup
	now            func() time.Time
	between        time.Duration // two looks at the slot
	oldTransaction time.Duration
	settled        time.Duration // clocks differ by less, and what is on its way arrives within it
	patience       time.Duration // with one check. The others still run.
}

func runDoctor(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return UsageError("doctor: takes no arguments")
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	d := doctor{Setup: s, now: time.Now, between: time.Second, oldTransaction: 5 * time.Minute, settled: time.Minute, patience: 10 * time.Second}
	report := d.examine(ctx)
	if err := p.print(report); err != nil {
		return err
	}
	if report.Failed > 0 {
		return errFound
	}
	return nil
}

// examine makes every check, those of the database beside those of AWS.
func (d doctor) examine(ctx context.Context) doctorReport {
	var database, services []check
	var group sync.WaitGroup
	group.Go(func() { database = d.database(ctx) })
	group.Go(func() { services = d.services(ctx) })
	group.Wait()
	report := doctorReport{Checks: slices.Concat(database, services)}
	for _, c := range report.Checks {
		switch c.State {
		case stateFail:
			report.Failed++
		case stateWarn:
			report.Warned++
		case stateOK, stateSkip:
		}
	}
	return report
}

type doctorReport struct {
	Checks []check `json:"checks"`
	Failed int     `json:"failed"`
	Warned int     `json:"warned"`
}

func (r doctorReport) text(w io.Writer) {
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-4s  %-14s %s\n", c.State, c.Name, c.Finding)
		if c.Do != "" && c.State != stateOK {
			fmt.Fprintf(w, "      %-14s -> %s\n", "", c.Do)
		}
	}
	fmt.Fprintf(w, "%s: %d failed, %d to think about\n", plural.Of(len(r.Checks), "check"), r.Failed, r.Warned)
}

// clock judges how far another clock is from ours. exact is how exact we know it.
func clock(name string, theirs, ours time.Time, exact time.Duration) check {
	off := theirs.Sub(ours)
	by := max(0, off.Abs()-exact)
	c := check{name, stateOK, fmt.Sprintf("within %s of ours", (off.Abs() + exact).Round(10*time.Millisecond)),
		"let NTP set the clocks: ages, retention and signatures are reckoned by them"}
	switch {
	case by > 2*time.Minute: // AWS refuses a signature that is 5 minutes off
		c.State, c.Finding = stateFail, fmt.Sprintf("%s off ours", off.Round(time.Second))
	case by > 2*time.Second:
		c.State, c.Finding = stateWarn, fmt.Sprintf("%s off ours", off.Round(time.Second))
	}
	return c
}

// size is a number of bytes to be read by people.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	default:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
}
