// Package chart draws the pictures of `make bench` and `make chaos`, as SVG that fits light and dark pages.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
)

// Drawing is an SVG being written. All measures are pixels.
type Drawing struct{ svg bytes.Buffer }

// style has the classes that every chart has, and two places for those of one chart.
const style = `
svg{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.page{fill:#fff}.text{fill:#1f2328}.quiet{fill:#59636e}.title{font-size:16px;font-weight:600}.grid{stroke:#d1d9e0;stroke-width:1}%s
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.text{fill:#f0f6fc}.quiet{fill:#9198a1}.grid{stroke:#3d444d}%s
}
`

// New begins a drawing with a title, and a line of facts below it, which both begin at left. light and dark are the chart's own CSS rules. dark
// holds for readers with a dark background.
func New(width, height, left float64, title, facts, light, dark string) *Drawing {
	d := &Drawing{}
	fmt.Fprintf(&d.svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img">`+"\n", width, height)
	fmt.Fprintf(&d.svg, "<title>%s</title>\n<desc>%s</desc>\n<style>"+style+"</style>\n", escape(title), escape(facts), light, dark)
	d.Rect("page", 0, 0, width, height)
	d.Text("text title", left, 28, "start", title)
	d.Text("quiet", left, 48, "start", facts)
	return d
}

// Rect draws a rectangle from its upper left corner.
func (d *Drawing) Rect(class string, x, y, width, height float64) {
	fmt.Fprintf(&d.svg, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.0f"/>`+"\n", class, x, y, width, height)
}

// Path draws a path. Its data are a format and arguments.
func (d *Drawing) Path(class, format string, args ...any) {
	fmt.Fprintf(&d.svg, `<path class="%s" d="`+format+`"/>`+"\n", append([]any{class}, args...)...)
}

// Text writes text, of which the anchor (start, middle or end) is at x. y is its base line.
func (d *Drawing) Text(class string, x, y float64, anchor, text string) {
	fmt.Fprintf(&d.svg, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escape(text))
}

// Key explains a class of rectangles, below the facts.
func (d *Drawing) Key(class string, x float64, name string) {
	d.Rect(class, x, 60, 14, 8)
	d.Text("quiet", x+18, 68, "start", name)
}

// Group makes a group of what draw draws. Whoever points at it sees the tip.
func (d *Drawing) Group(tip string, draw func()) {
	fmt.Fprintf(&d.svg, "<g><title>%s</title>\n", escape(tip))
	draw()
	d.svg.WriteString("</g>\n")
}

// End ends the drawing and writes it.
func (d *Drawing) End(w io.Writer) error {
	d.svg.WriteString("</svg>\n")
	_, err := w.Write(d.svg.Bytes())
	return err
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer takes everything
	return b.String()
}
