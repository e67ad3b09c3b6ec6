package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/lab/chart"
)

// families are the lanes of the timeline, and the first words of the kinds of faults in each.
var families = []struct {
	name  string
	words []string
}{
	{"process kills", []string{"kill", "freeze"}},
	{"failpoints", []string{"failpoint"}},
	{"Kinesis", []string{"kinesis"}},
	{"EventBridge", []string{"events"}},
	{"failure queue", []string{"queue"}},
	{"database", []string{"database"}},
	{"slot", []string{"slot", "second"}},
	{"writers", []string{"writer", "writers", "poison"}},
	{"other", nil},
}

// familyOf is the place of a kind's lane.
func familyOf(kind string) int {
	first, _, _ := strings.Cut(kind, "-")
	for i, f := range families {
		if slices.Contains(f.words, first) {
			return i
		}
	}
	return len(families) - 1
}

// The picture's measures in pixels. The rates are above, the lanes below, and one time axis under
// both.
const (
	width      = 1200.0
	plotLeft   = 120.0
	plotRight  = 1180.0
	rateTop    = 76.0
	rateBottom = 276.0
	lanesTop   = 300.0
	laneHeight = 28.0
	barHeight  = 14.0
	thinnest   = 1.5 // a fault of no length is seen, too
)

const light = `
.lane{fill:#f6f8fa}.fault{fill:#cf222e}.recovery{fill:#bf8700;fill-opacity:.4}
.area{fill:#0969da;fill-opacity:.15}.arrivals{fill:none;stroke:#0969da;stroke-width:1.5}.commits{fill:none;stroke:#bc4c00;stroke-width:1}`

const dark = `
.lane{fill:#151b23}.fault{fill:#f85149}.recovery{fill:#d29922;fill-opacity:.4}
.area{fill:#4493f8;fill-opacity:.2}.arrivals{stroke:#4493f8}.commits{stroke:#f0883e}`

// drawing is the timeline being drawn.
type drawing struct {
	*chart.Drawing
	total float64 // seconds from left to right
}

// WriteSVG writes the timeline with arrivals and commits per second, and below them every struck
// fault and its recovery.
func (r *Report) WriteSVG(w io.Writer) error {
	lanes := len(families) - 1
	if slices.ContainsFunc(r.strikes, func(s strike) bool { return familyOf(s.Kind) == lanes }) {
		lanes++
	}
	bottom := lanesTop + float64(lanes)*laneHeight
	title := fmt.Sprintf("make chaos: seed %d, %s, %s of %s", r.Seed, plural.Of(r.Rounds, "round"), plural.Of(len(r.strikes), "fault"), plural.Of(len(r.kinds()), "kind"))
	facts := fmt.Sprintf("%d events, %d lost, %d reordered, %d wrong, %d duplicates per million, longest gap %.1f s; %d cores, %s/%s, %s, PostgreSQL %s",
		r.Events, r.Lost, r.Reordered, r.Wrong, r.perMillion(), r.LongestGap.Seconds(),
		r.Cores, r.OS, r.Arch, r.Go, r.PostgreSQL)

	d := &drawing{chart.New(width, bottom+50, plotLeft, title, facts, light, dark), max(1, r.Duration().Seconds())}
	d.legend()
	d.timeAxis(bottom)
	d.rateChart(r)
	for i, family := range families[:lanes] {
		top := lanesTop + float64(i)*laneHeight
		d.Rect("lane", plotLeft, top+3, plotRight-plotLeft, laneHeight-6)
		d.Text("text", plotLeft-8, top+laneHeight/2+4, "end", family.name)
	}
	// Recoveries are drawn first. In a long run they would otherwise hide the faults beside them.
	for _, s := range r.strikes {
		if s.Recovery != nil {
			d.bar("recovery", s, s.End, s.End+*s.Recovery)
		}
	}
	for _, s := range r.strikes {
		d.bar("fault", s, s.Start, s.End)
	}
	return d.End(w)
}

func (d *drawing) legend() {
	const x = plotRight - 320
	for i, rate := range []string{"arrivals", "commits"} {
		left := x + 90*float64(i)
		d.Path(rate, "M%.1f 64h14", left)
		d.Text("quiet", left+18, 68, "start", rate+"/s")
	}
	d.Key("fault", x+180, "fault")
	d.Key("recovery", x+250, "recovery")
}

// rateChart draws the area of arrivals and the lines of both rates, as steps.
func (d *drawing) rateChart(r *Report) {
	arrivals, commits := r.rates(r.arrivals), r.rates(r.commits)
	highest := max(1, slices.Max(append([]float64{0}, slices.Concat(arrivals, commits)...)))
	step := niceStep(highest / 4)
	highest = math.Ceil(highest/step) * step
	y := func(rate float64) float64 { return rateBottom - rate/highest*(rateBottom-rateTop) }
	for i := 0; float64(i)*step <= highest; i++ {
		rate := float64(i) * step
		d.Path("grid", "M%.0f %.1fH%.0f", plotLeft, y(rate), plotRight)
		d.Text("quiet", plotLeft-8, y(rate)+4, "end", fmt.Sprint(rate))
	}
	d.Text("quiet", plotLeft-8, rateTop-14, "end", "events/s")

	steps := func(rates []float64) string {
		var path strings.Builder
		for i, rate := range rates {
			if i == 0 {
				fmt.Fprintf(&path, "M%.1f %.1f", plotLeft, y(rate))
			}
			fmt.Fprintf(&path, "V%.1fH%.1f", y(rate), d.x(float64((i+1)*r.bucketSeconds())))
		}
		return path.String()
	}
	if len(arrivals) == 0 {
		return
	}
	d.Path("area", "%sV%.1fH%.1fZ", steps(arrivals), rateBottom, plotLeft)
	d.Path("arrivals", "%s", steps(arrivals))
	d.Path("commits", "%s", steps(commits))
}

func (d *drawing) timeAxis(bottom float64) {
	step := 3600.0
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800} {
		if d.total/s <= 12 {
			step = s
			break
		}
	}
	for step*20 < d.total { // days
		step *= 2
	}
	for at := 0.0; at <= d.total; at += step {
		d.Path("grid", "M%.1f %.0fV%.0f", d.x(at), rateTop, bottom)
		d.Text("quiet", d.x(at), bottom+16, "middle", fmt.Sprintf("%d:%02d", int(at)/60, int(at)%60))
	}
	d.Text("quiet", (plotLeft+plotRight)/2, bottom+36, "middle", "time since the start (minutes:seconds)")
}

// bar draws a span of a strike, in milliseconds, in its family's lane; pointing at it tells all about it.
func (d *drawing) bar(class string, s strike, from, to float64) {
	tip := fmt.Sprintf("%s at %.1f s for %.0f ms, round %d: ", s.Kind, s.Start/1000, s.End-s.Start, s.Round)
	if s.Recovery != nil {
		tip += fmt.Sprintf("next event after %.0f ms", *s.Recovery)
	} else {
		tip += "no event afterwards"
	}
	x := d.x(from / 1000)
	y := lanesTop + float64(familyOf(s.Kind))*laneHeight + (laneHeight-barHeight)/2
	d.Group(tip, func() { d.Rect(class, x, y, max(thinnest, d.x(to/1000)-x), barHeight) })
}

// x is where a time is, in seconds since the start.
func (d *drawing) x(seconds float64) float64 {
	return plotLeft + min(max(0, seconds/d.total), 1)*(plotRight-plotLeft)
}

// niceStep is the next of 1, 2, 5, 10, 20, 50 ... that is at least x.
func niceStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(x, 1))))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= x {
			return m * power
		}
	}
	return 10 * power
}
