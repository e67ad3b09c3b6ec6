package bench

import (
	"fmt"
	"slices"
)

// noise is the spread above which the rounds of a measurement say more about the machine than about
// the code.
const noise = 0.2

// attempts is how often a run with Check measures a hop whose rows cannot be judged.
const attempts = 2

// judged marks a row whose rounds differ too much to say anything. Its target counts as neither reached nor missed.
func (r Row) judged() Row {
	r.Noisy = r.spread() > noise
	r.Reached = r.Reached && !r.Noisy
	return r
}

// spread returns the larger spread of the two sides.
func (r Row) spread() float64 { return max(r.Ours.Spread(), r.Limit.Spread()) }

func (r Row) notJudged() string {
	side := "ours"
	if r.Limit.Spread() > r.Ours.Spread() {
		side = r.LimitName
	}
	return fmt.Sprintf("not judged: rounds of %s differ by %.0f %% from their median, more than %.0f %%", side, 100*r.spread(), 100*noise)
}

// worse says how the row is beyond its bound, or returns "". It judges the best round, because
// slower code is slower in all rounds. A noisy row is never worse.
func (r Row) worse() string {
	switch {
	case r.Bound == 0:
	case r.Missing != "":
		return "not measured: " + r.Missing
	case r.Noisy:
	case len(r.Limit) > 0:
		if best := slices.Max(r.Ours) / r.Limit.Median(); best < r.Bound {
			return fmt.Sprintf("%.2f of %s at best, less than %.2f", best, r.LimitName, r.Bound)
		}
	default:
		if best := slices.Min(r.Ours); best > r.Bound {
			return fmt.Sprintf("%s at best, more than %s", figure(best, r.Unit), figure(r.Bound, r.Unit))
		}
	}
	return ""
}

// open says why the row may be beyond its bound, or returns "". A noisy row is within its bound
// only if its worst round is, compared with the best round of the limit.
func (r Row) open() string {
	if r.Bound == 0 || r.Missing != "" || !r.Noisy {
		return ""
	}
	within := slices.Max(r.Ours) <= r.Bound
	if len(r.Limit) > 0 {
		within = slices.Min(r.Ours)/slices.Max(r.Limit) >= r.Bound
	}
	if within {
		return ""
	}
	return r.notJudged()
}

// Worse returns the hops that are beyond their bounds, a line each. A hop that could not be
// measured is one of them.
func (r *Report) Worse() (lines []string) {
	for _, row := range r.Rows {
		if worse := row.worse(); worse != "" {
			lines = append(lines, fmt.Sprintf("%s got worse: %s: %s", row.Hop, row.What, worse))
		}
	}
	return lines
}

// Open returns the hops whose bound could not be judged because of noise, a line each.
func (r *Report) Open() (lines []string) {
	for _, row := range r.Rows {
		if open := row.open(); open != "" {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", row.Hop, row.What, open))
		}
	}
	return lines
}
