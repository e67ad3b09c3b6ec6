//go:build browser

package browser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

var looksTo = flag.String("looks", "", "folder that a picture of the page in each window is written to; empty: none")

// clipped lists the texts that are cut off: an element that hides what is wider than itself, or text that leaves the window.
const clipped = `[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('.hidden, .skip, svg, option, canvas') &&
	[...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && (style =>
		// An inline element has no width of its own, and what scrolls may be wider.
		style.display !== 'inline' && !['auto', 'scroll'].includes(style.overflowX) && e.scrollWidth > e.clientWidth ||
		e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .rows'))(getComputedStyle(e))
).map(e => e.outerHTML.slice(0, 160) + ' ' + e.scrollWidth + ' > ' + e.clientWidth)`

// No text is clipped in any window, and at 150 % zoom of one, whatever is open and however large the numbers are.
func clipsNoText(t *testing.T, d *dev) {
	tb := show(t, d, look{width: 1440, height: 900, still: true})
	tb.click(killsTheRelay)
	tb.wait("the relay to be killed", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'true'`)
	tb.setLoad(d, 60)
	labtest.Eventually(t, "events to wait", func() bool { return d.state(t).Totals.OnTheWay > 60 })
	tb.setLoad(d, 0)
	for _, dark := range []bool{false, true} {
		for _, width := range []int64{360, 640, 768, 960, 1024, 1280, 1440, 1920} {
			tb := show(t, d, look{width: width, height: 900, still: true, dark: dark})
			tb.fits(fmt.Sprintf("%d-%t", width, dark))
			tb.click("summary")
			tb.fits(fmt.Sprintf("%d-%t-details", width, dark))
			tb.click("summary")
			if width == 360 || width == 1440 {
				tb.click(`tr[data-event] td`)
				tb.wait("its records", `document.querySelector('#event').checkVisibility() && document.querySelectorAll('#event [data-hop]').length >= 6`)
				tb.fits(fmt.Sprintf("%d-%t-event", width, dark))
				require.Less(t, eval[int](tb, `document.querySelector('#event').offsetHeight`), 2500)
			}
		}
	}
	tb.click(killsTheRelay)
	tb.balanced(d)
}

func (tb *tab) fits(name string) {
	tb.t.Helper()
	tb.wait("a state", `document.querySelector('#verdict').textContent.trim()`)
	if *looksTo != "" {
		png, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
		require.NoError(tb.t, err)
		require.NoError(tb.t, os.WriteFile(filepath.Join(*looksTo, name+".png"), png, 0o644))
	}
	require.Empty(tb.t, eval[[]string](tb, clipped), name)
}
