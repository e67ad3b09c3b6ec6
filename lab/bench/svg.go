package bench

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"time"
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

// The second half is for readers with a dark background.
const style = `
svg{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.page{fill:#fff}.text{fill:#1f2328}.quiet{fill:#59636e}.title{font-size:16px;font-weight:600}
.grid{stroke:#d1d9e0;stroke-width:1}.limit{stroke:#59636e;stroke-width:1}.target{stroke:#1f2328;stroke-width:2}
.figure{fill:#0969da}.reached{fill:#1a7f37}.missed{fill:#cf222e}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.text{fill:#f0f6fc}.quiet{fill:#9198a1}.grid{stroke:#3d444d}.limit{stroke:#9198a1}.target{stroke:#f0f6fc}
.figure{fill:#4493f8}.reached{fill:#3fb950}.missed{fill:#f85149}
}`

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
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img">`+"\n", chartWidth, bottom+24)
	fmt.Fprintf(d, "<title>make bench: every hop beside its limit</title>\n<desc>%s</desc>\n<style>%s\n</style>\n", escape(facts), style)
	fmt.Fprintf(d, `<rect class="page" width="%.0f" height="%.0f"/>`+"\n", chartWidth, bottom+24)
	d.text("text title", 16, 28, "start", "make bench: every hop beside its limit")
	d.text("quiet", 16, 48, "start", facts)
	d.legend()
	for ratio := 0.0; ratio <= longest; ratio += 0.5 {
		class := "grid"
		if ratio == 1 {
			class = "limit"
		}
		d.line(class, barX(ratio), chartTop-8, bottom)
		d.text("quiet", barX(ratio), chartTop-14, "middle", fmt.Sprintf("%g", ratio))
	}
	for i, row := range rows {
		d.row(row, chartTop+float64(i)*rowHeight)
	}
	d.WriteString("</svg>\n")
	_, err := w.Write(d.Bytes())
	return err
}

// drawing is an SVG being written.
type drawing struct{ bytes.Buffer }

func (d *drawing) legend() {
	x := barsLeft
	for _, item := range []struct{ class, name string }{{"reached", "target reached"}, {"missed", "missed"}, {"figure", "no target"}} {
		fmt.Fprintf(d, `<rect class="%s" x="%.0f" y="60" width="14" height="8"/>`+"\n", item.class, x)
		d.text("quiet", x+18, 68, "start", item.name)
		x += 120
	}
	d.line("target", x, 57, 71)
	d.text("quiet", x+10, 68, "start", "target; 1 is the limit")
}

func (d *drawing) row(row Row, top float64) {
	name := row.Hop + ": " + row.What
	middle := top + rowHeight/2 + 4
	fmt.Fprintf(d, `<g><title>%s</title>`+"\n", escape(name))
	if runes := []rune(name); len(runes) > nameLength {
		name = string(runes[:nameLength-1]) + "…"
	}
	d.text("text", barsLeft-10, middle, "end", name)
	class := "figure"
	var target float64
	// A target that is not a ratio has no place on this axis.
	if _, err := fmt.Sscanf(row.Target, ">= %f x", &target); err == nil {
		class = map[bool]string{true: "reached", false: "missed"}[row.Reached]
	}
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.0f"/>`+"\n",
		class, barsLeft, top+5, barX(row.Ratio())-barsLeft, rowHeight-10)
	if target > 0 {
		d.line("target", barX(target), top+2, top+rowHeight-2)
	}
	d.text("text", barsRight+10, middle, "start", fmt.Sprintf("%.2f", row.Ratio()))
	d.text("quiet", barsRight+46, middle, "start", figure(row.Ours.Median(), row.Unit)+" of "+figure(row.Limit.Median(), row.Unit))
	d.WriteString("</g>\n")
}

// barX returns the x of a ratio.
func barX(ratio float64) float64 {
	return barsLeft + min(max(0, ratio), longest)/longest*(barsRight-barsLeft)
}

func (d *drawing) line(class string, x, from, to float64) {
	fmt.Fprintf(d, `<path class="%s" d="M%.1f %.1fV%.1f"/>`+"\n", class, x, from, to)
}

func (d *drawing) text(class string, x, y float64, anchor, text string) {
	fmt.Fprintf(d, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escape(text))
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer takes everything
	return b.String()
}
