package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"rds-outbox-demo/internal/plural"
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

// The second half is for readers with a dark background.
const style = `
svg{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.page{fill:#fff}.text{fill:#1f2328}.quiet{fill:#59636e}.title{font-size:16px;font-weight:600}
.grid{stroke:#d1d9e0;stroke-width:1}.lane{fill:#f6f8fa}
.area{fill:#0969da;fill-opacity:.15}.arrivals{fill:none;stroke:#0969da;stroke-width:1.5}.commits{fill:none;stroke:#bc4c00;stroke-width:1}
.fault{fill:#cf222e}.recovery{fill:#bf8700;fill-opacity:.4}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.text{fill:#f0f6fc}.quiet{fill:#9198a1}.grid{stroke:#3d444d}.lane{fill:#151b23}
.area{fill:#4493f8;fill-opacity:.2}.arrivals{stroke:#4493f8}.commits{stroke:#f0883e}.fault{fill:#f85149}.recovery{fill:#d29922;fill-opacity:.4}
}`

// drawing is an SVG being written.
type drawing struct {
	bytes.Buffer
	total float64 // seconds from left to right
}

// WriteSVG writes the timeline with arrivals and commits per second, and below them every struck
// fault and its recovery.
func (r *Report) WriteSVG(w io.Writer) error {
	d := &drawing{total: max(1, r.Duration().Seconds())}
	lanes := len(families) - 1
	if slices.ContainsFunc(r.strikes, func(s strike) bool { return familyOf(s.kind) == lanes }) {
		lanes++
	}
	bottom := lanesTop + float64(lanes)*laneHeight
	title := fmt.Sprintf("make chaos: seed %d, %s, %s of %s", r.Seed, plural.Of(r.Rounds, "round"), plural.Of(len(r.strikes), "fault"), plural.Of(len(r.kinds()), "kind"))
	facts := fmt.Sprintf("%d events, %d lost, %d reordered, %d wrong, %d duplicates per million, longest gap %.1f s; %d cores, %s/%s, %s, PostgreSQL %s",
		r.Events, r.Lost, r.Reordered, r.Wrong, r.perMillion(), r.LongestGap.Seconds(),
		r.Cores, r.OS, r.Arch, r.Go, r.PostgreSQL)

	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img">`+"\n", width, bottom+50)
	fmt.Fprintf(d, "<title>%s</title>\n<desc>%s</desc>\n<style>%s\n</style>\n", escape(title), escape(facts), style)
	d.rect("page", 0, 0, width, bottom+50)
	d.text("text title", plotLeft, 26, "start", title)
	d.text("quiet", plotLeft, 46, "start", facts)
	d.legend()
	d.timeAxis(bottom)
	d.rateChart(r)
	for i, family := range families[:lanes] {
		top := lanesTop + float64(i)*laneHeight
		d.rect("lane", plotLeft, top+3, plotRight-plotLeft, laneHeight-6)
		d.text("text", plotLeft-8, top+laneHeight/2+4, "end", family.name)
	}
	// Recoveries are drawn first. In a long run they would otherwise hide the faults beside them.
	for _, s := range r.strikes {
		if s.recovered {
			d.bar("recovery", s, s.end, s.end+s.recovery)
		}
	}
	for _, s := range r.strikes {
		d.bar("fault", s, s.start, s.end)
	}
	d.WriteString("</svg>\n")
	_, err := w.Write(d.Bytes())
	return err
}

func (d *drawing) legend() {
	x := plotRight - 320
	for _, item := range []struct {
		class, name string
		width       float64
	}{{"arrivals", "arrivals/s", 90}, {"commits", "commits/s", 90}, {"fault", "fault", 70}, {"recovery", "recovery", 0}} {
		if item.class == "fault" || item.class == "recovery" {
			d.rect(item.class, x, 58, 14, 8)
		} else {
			fmt.Fprintf(d, `<path class="%s" d="M%.1f 62h14"/>`+"\n", item.class, x)
		}
		d.text("quiet", x+18, 66, "start", item.name)
		x += item.width
	}
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
		fmt.Fprintf(d, `<path class="grid" d="M%.0f %.1fH%.0f"/>`+"\n", plotLeft, y(rate), plotRight)
		d.text("quiet", plotLeft-8, y(rate)+4, "end", fmt.Sprint(rate))
	}
	d.text("quiet", plotLeft-8, rateTop-14, "end", "events/s")

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
	fmt.Fprintf(d, `<path class="area" d="%sV%.1fH%.1fZ"/>`+"\n", steps(arrivals), rateBottom, plotLeft)
	fmt.Fprintf(d, `<path class="arrivals" d="%s"/>`+"\n", steps(arrivals))
	fmt.Fprintf(d, `<path class="commits" d="%s"/>`+"\n", steps(commits))
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
		fmt.Fprintf(d, `<path class="grid" d="M%.1f %.0fV%.0f"/>`+"\n", d.x(at), rateTop, bottom)
		d.text("quiet", d.x(at), bottom+16, "middle", fmt.Sprintf("%d:%02d", int(at)/60, int(at)%60))
	}
	d.text("quiet", (plotLeft+plotRight)/2, bottom+36, "middle", "time since the start (minutes:seconds)")
}

// bar draws a span of a strike in its family's lane; pointing at it tells all about it.
func (d *drawing) bar(class string, s strike, from, to time.Duration) {
	tip := fmt.Sprintf("%s at %.1f s for %.0f ms, round %d: ", s.kind, s.start.Seconds(), milliseconds(s.end-s.start), s.round)
	if s.recovered {
		tip += fmt.Sprintf("next event after %.0f ms", milliseconds(s.recovery))
	} else {
		tip += "no event afterwards"
	}
	x := d.x(from.Seconds())
	y := lanesTop + float64(familyOf(s.kind))*laneHeight + (laneHeight-barHeight)/2
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.0f"><title>%s</title></rect>`+"\n",
		class, x, y, max(thinnest, d.x(to.Seconds())-x), barHeight, escape(tip))
}

// x is where a time is, in seconds since the start.
func (d *drawing) x(seconds float64) float64 {
	return plotLeft + min(max(0, seconds/d.total), 1)*(plotRight-plotLeft)
}

func (d *drawing) rect(class string, x, y, w, h float64) {
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", class, x, y, w, h)
}

func (d *drawing) text(class string, x, y float64, anchor, text string) {
	fmt.Fprintf(d, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escape(text))
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer takes everything
	return b.String()
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
