//go:build browser

package browser

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

const (
	relayLane = `[...document.querySelectorAll('.lane')][2]`
	// bandOfRelay is the newest band in the lane of the WAL, with its name if that is in sight and within the lane.
	bandOfRelay = `(lane => { const band = lane.querySelector('.band'), name = lane.querySelector('.band-name'); if (!band) return {name: ''};
		const [l, b, n] = [lane.querySelector('.lane-track'), band, name].map(e => e.getBoundingClientRect());
		return {name: getComputedStyle(name).visibility === 'visible' && n.left >= l.left - 1 && n.right <= l.right + 1 ? name.textContent : '', open: b.right >= l.right - 3,
			covers: n.bottom > lane.querySelector('svg').getBoundingClientRect().top + 1};
	})(` + relayLane + `)`
)

// A page that was just loaded shows what passed each hop, and which fault was in force at what
// time.
func keepsTheTimeline(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	reload := func() {
		tb.do(chromedp.Reload())
		tb.connected()
	}
	d.post(t, `{"make":"Drawn","model":"In Lanes","year":2023}`)
	tb.balanced(d)
	passed := `[...document.querySelectorAll('.lane .bars')].filter(bars => bars.getAttribute('d')).length === 6`
	tb.wait("a bar in each hop's lane", passed)
	tb.wait("the latency", `document.querySelector('.latency path.p50').getAttribute('d') && document.querySelector('#timeline-summary').textContent.includes('p99')`)

	tb.click(killsTheRelay)
	begun := bandOfRelay + `.name === 'Relay (walrelay) killed' && ` + bandOfRelay + `.open`
	tb.wait("the band of the fault", begun)
	require.False(t, tb.is(bandOfRelay+`.covers`), "the name of the fault covers the bars")
	reload()
	tb.wait("the band after a reload", begun)
	tb.click(killsTheRelay)
	over := bandOfRelay + `.name === 'Relay (walrelay) killed' && !` + bandOfRelay + `.open`
	tb.wait("the end of the band", over)
	reload()
	tb.wait("the band and the bars after a reload", over+` && `+passed)
	tb.wait("the same in words", `/Relay \(walrelay\) killed from [\d:]+ to [\d:]+\./.test(document.querySelector('#faults-said').textContent)`)
	tb.balanced(d)
}
