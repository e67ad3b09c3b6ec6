package bench

import (
	"fmt"
	"io"
	"time"

	"rds-outbox-demo/lab/chart"
)

// The chart's measures in pixels. Names, bars and figures are side by side.
const (
	chartWidth = 1200.0
	barsLeft   = 480.0
	barsRight  = 880.0
	chartTop   = 100.0
	rowHeight  = 26.0
	// longest is the ratio at which a bar is cut off.
	longest = 2.0
	// nameLength is how many characters of a name there is room for.
	nameLength = 74
)

const light = `
.limit{stroke:#59636e;stroke-width:1}.target{stroke:#1f2328;stroke-width:2}
.figure{fill:#0969da}.reached{fill:#1a7f37}.missed{fill:#cf222e}`

const dark = `
.limit{stroke:#9198a1}.target{stroke:#f0f6fc}.figure{fill:#4493f8}.reached{fill:#3fb950}.missed{fill:#f85149}`

// SVG writes a chart of the rows that have a limit and were judged. Each has a bar for the ratio,
// and a mark at the target.
func (r *Report) SVG(w io.Writer) error {
	var rows []Row
	for _, row := range r.Rows {
		if len(row.Limit) > 0 && !row.Noisy {
			rows = append(rows, row)
		}
	}
	bottom := chartTop + float64(len(rows))*rowHeight
	facts := fmt.Sprintf("%s, %s, %s, PostgreSQL %s, medians of %d rounds", r.Started.Format(time.DateOnly), r.Machine, r.Go, r.PostgreSQL, r.Rounds)
	if r.Quick {
		facts += ", quick: rough figures"
	}
	d := chart.New(chartWidth, bottom+24, 16, "make bench: every hop beside its limit", facts, light, dark)
	x := barsLeft
	for _, key := range [][2]string{{"reached", "target reached"}, {"missed", "missed"}, {"figure", "no target"}} {
		d.Key(key[0], x, key[1])
		x += 120
	}
	d.Path("target", "M%.1f 57V71", x)
	d.Text("quiet", x+10, 68, "start", "target; 1 is the limit")
	for ratio := 0.0; ratio <= longest; ratio += 0.5 {
		class := "grid"
		if ratio == 1 {
			class = "limit"
		}
		d.Path(class, "M%.1f %.1fV%.1f", barX(ratio), chartTop-8, bottom)
		d.Text("quiet", barX(ratio), chartTop-14, "middle", fmt.Sprintf("%g", ratio))
	}
	for i, row := range rows {
		d.Group(row.name(), func() { row.draw(d, chartTop+float64(i)*rowHeight) })
	}
	return d.End(w)
}

func (r Row) name() string { return r.Hop + ": " + r.What }

func (r Row) draw(d *chart.Drawing, top float64) {
	name := r.name()
	if runes := []rune(name); len(runes) > nameLength {
		name = string(runes[:nameLength-1]) + "…"
	}
	middle := top + rowHeight/2 + 4
	d.Text("text", barsLeft-10, middle, "end", name)
	class := "figure"
	var target float64
	// A target that is not a ratio has no place on this axis.
	if _, err := fmt.Sscanf(r.Target, ">= %f x", &target); err == nil {
		class = map[bool]string{true: "reached", false: "missed"}[r.Reached]
	}
	d.Rect(class, barsLeft, top+5, barX(r.Ratio())-barsLeft, rowHeight-10)
	if target > 0 {
		d.Path("target", "M%.1f %.1fV%.1f", barX(target), top+2, top+rowHeight-2)
	}
	d.Text("text", barsRight+10, middle, "start", fmt.Sprintf("%.2f", r.Ratio()))
	d.Text("quiet", barsRight+46, middle, "start", figure(r.Ours.Median(), r.Unit)+" of "+figure(r.Limit.Median(), r.Unit))
}

// barX returns the x of a ratio.
func barX(ratio float64) float64 {
	return barsLeft + min(max(0, ratio), longest)/longest*(barsRight-barsLeft)
}
