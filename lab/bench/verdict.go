package bench

import (
	"fmt"
	"slices"
)

// noise is the spread above which the rounds of a measurement tell more about the machine than about the code.
const noise = 0.2

// attempts is how often a run with Check measures a hop at most until its rows can be judged.
const attempts = 2

// judged marks a row whose rounds differ too much to say anything. Its target counts as neither reached nor missed.
func (r Row) judged() Row {
	r.Noisy = r.spread() > noise
	r.Reached = r.Reached && !r.Noisy
	return r
}

// spread is the larger one of the two sides.
func (r Row) spread() float64 { return max(r.Ours.Spread(), r.Limit.Spread()) }

func (r Row) notJudged() string {
	side := "ours"
	if r.Limit.Spread() > r.Ours.Spread() {
		side = r.LimitName
	}
	return fmt.Sprintf("not judged: rounds of %s differ by %.0f %% from their median, more than %.0f %%", side, 100*r.spread(), 100*noise)
}

// worse says how the row lies beyond its bound, or nothing. The best round counts, because what got worse is worse in all of them.
// A noisy row is never worse.
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

// open says why the row may lie beyond its bound, or nothing. A noisy row lies within it only if its worst round does, beside the best
// one of the limit.
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

// worse are the rows beyond their bounds, a line each.
func worse(rows []Row) (lines []string) {
	for _, row := range rows {
		if worse := row.worse(); worse != "" {
			lines = append(lines, fmt.Sprintf("%s got worse: %s: %s", row.Hop, row.What, worse))
		}
	}
	return lines
}

// open are the rows whose bounds could not be judged, a line each.
func open(rows []Row) (lines []string) {
	for _, row := range rows {
		if open := row.open(); open != "" {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", row.Hop, row.What, open))
		}
	}
	return lines
}

// Worse says which hops lie beyond their bounds, a line each; what could not be measured is one of them.
func (r *Report) Worse() []string { return worse(r.Rows) }

// Open says which hops have a bound that noise kept from being judged, a line each.
func (r *Report) Open() []string { return open(r.Rows) }

// Missed are the rows whose target was not reached.
func (r *Report) Missed() (missed []Row) {
	for _, row := range r.Rows {
		if row.Target != "" && row.Missing == "" && !row.Noisy && !row.Reached {
			missed = append(missed, row)
		}
	}
	return missed
}
