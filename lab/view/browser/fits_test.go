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

// clipped lists the texts that are cut off, by an element that hides what is wider than itself, by one around it, or by the window.
const clipped = `(() => {
	const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let node = walker.nextNode(); node; node = walker.nextNode()) {
		const own = node.parentElement;
		if (!node.textContent.trim() || !own.checkVisibility({visibilityProperty: true}) || own.closest('.hidden, .skip, svg, noscript')) continue;
		if (getComputedStyle(own).display !== 'inline' && getComputedStyle(own).overflowX === 'visible' && own.scrollWidth > own.clientWidth) found.push(own);
		const range = document.createRange();
		range.selectNode(node);
		const right = range.getBoundingClientRect().right;
		for (let e = own; ; e = e.parentElement) {
			const overflow = e === document.body ? 'hidden' : getComputedStyle(e).overflowX;
			if (overflow === 'auto' || overflow === 'scroll') break; // what scrolls may be wider
			if (overflow !== 'visible' && right > (e === document.body ? innerWidth : e.getBoundingClientRect().right) + 1) found.push(own);
			if (e === document.body) break;
		}
	}
	return [...new Set(found)].map(e => e.outerHTML.slice(0, 160) + ' ' + e.scrollWidth + ' > ' + e.clientWidth);
})()`

// No text is clipped in any window, and at 150 % zoom of one, whatever is open and however large the numbers are.
func clipsNoText(t *testing.T, d *dev) {
	tb := show(t, d, look{width: 1440, height: 900, still: true})
	tb.click(killsTheRelay)
	tb.wait("the relay to be killed", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'true'`)
	tb.setLoad(d, 60)
	labtest.Eventually(t, "events to wait", func() bool { return d.state(t).Totals.OnTheWay > 60 })
	tb.setLoad(d, 0)
	for _, dark := range []bool{false, true} {
		tb := show(t, d, look{width: 360, height: 900, still: true, dark: dark})
		for _, width := range []int64{360, 640, 768, 960, 1024, 1280, 1440, 1920} {
			tb.do(chromedp.EmulateViewport(width, 900))
			eval[bool](tb, `(scrollTo(0, 0), true)`)
			tb.wait("the banner to say what waits, though another page has switched the fault on", head+` === 'Relay killed' && `+text+`.endsWith('events wait. None is lost.')`)
			tb.fits(fmt.Sprintf("%d-%t", width, dark))
			tb.click("summary")
			tb.fits(fmt.Sprintf("%d-%t-details", width, dark))
			tb.click("summary")
			if width == 360 || width == 1440 {
				tb.click(`tr[data-event] td`)
				tb.wait("its records", `document.querySelector('#event [data-hop]') && !document.querySelector('#event-note').textContent.includes('Asking')`)
				eval[bool](tb, `(document.querySelector('#event').scrollIntoView(), true)`)
				tb.fits(fmt.Sprintf("%d-%t-event", width, dark))
				require.Empty(t, eval[[]string](tb, `[...document.querySelectorAll('#hops button')].flatMap(hop => (hop.click(), `+clipped+`))`), width)
				require.Less(t, eval[int](tb, `document.querySelector('#event').offsetHeight`), 2500)
				tb.click("#event-close")
			}
		}
	}
	tb.click(killsTheRelay)
	tb.wait("the relay to be started", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'false'`)
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
