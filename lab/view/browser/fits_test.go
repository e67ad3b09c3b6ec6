//go:build browser

package browser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

var looksTo = flag.String("looks", "", "folder that a picture of the page in each window is written to; empty: none")

// illFitting lists the elements whose text is cut off, broken within a word, or too small to read.
// Each element with text has to be as wide as its text. The text has to end before the edge of any
// ancestor that hides or scrolls its overflow, so that nothing scrolls sideways. Only texts for
// screen readers are exempt.
const illFitting = `(() => {
	const found = new Map(), all = [...document.querySelectorAll('body *')];
	const unseen = all.filter(e => getComputedStyle(e).clipPath !== 'none');
	const edges = all.filter(e => getComputedStyle(e).overflowX !== 'visible').map(e => [e, e.getBoundingClientRect().right]);
	const sees = e => e.checkVisibility({visibilityProperty: true}) && !e.matches('.skip:not(:focus)') && !unseen.some(u => u.contains(e));
	for (const own of document.querySelectorAll('body :not(script, style, noscript, title)')) {
		const texts = [...own.childNodes].filter(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
		if (texts.length === 0 && own.tagName !== 'INPUT' || !sees(own)) continue;
		if (own.scrollWidth > own.clientWidth) found.set(own, 'is narrower than its text');
		if (parseFloat(getComputedStyle(own).fontSize) < 14) found.set(own, 'is smaller than 14 px');
		const range = document.createRange();
		for (const text of own.closest('.record dd, .record pre, .mono, code') ? [] : texts) { // ids and JSON have no words
			for (const word of text.textContent.matchAll(/(?<![\p{L}\p{N}.,])[\p{L}\p{N}.,]{1,20}(?![\p{L}\p{N}.,])/gu)) {
				range.setStart(text, word.index);
				range.setEnd(text, word.index + word[0].length);
				if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) found.set(own, 'breaks ' + word[0]);
			}
		}
		range.selectNodeContents(own);
		const right = range.getBoundingClientRect().right;
		if (right > innerWidth + 1) found.set(own, 'ends outside of the window');
		if (edges.some(([e, edge]) => right > edge + 1 && e.contains(own))) found.set(own, 'is cut off');
	}
	return [...found].map(([e, why]) => e.outerHTML.slice(0, 160) + ' ' + why);
})()`

// headings returns the heights of the sections' headings and of the cards'. In a row of cards the
// headings also begin at the same height.
const headings = `(all => [[...all('main h2:not(.hidden, #event-title)')].map(e => e.offsetHeight), [...all('.station h3')].map(e => e.offsetHeight),
	[...all('.station h3')].map(e => e.getBoundingClientRect().top - e.closest('.station').getBoundingClientRect().top)
].map(heights => new Set(heights.map(Math.round)).size))(selector => document.querySelectorAll(selector))`

// No text is clipped in any window, nor in one at 150 % zoom, whatever is open and however large
// the numbers are.
func clipsNoText(t *testing.T, d *dev) {
	tb := show(t, d, look{width: 1440, height: 900, still: true})
	tb.click(killsTheRelay)
	tb.wait("the relay to be killed", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'true'`)
	tb.setLoad(d, 60)
	labtest.Eventually(t, "events to wait", func() bool { return d.state(t).Totals.OnTheWay > 60 })
	tb.setLoad(d, 0)
	tb.findsWhatDoesNotFit()
	for _, dark := range []bool{false, true} {
		tb := show(t, d, look{width: 360, height: 900, still: true, dark: dark})
		for _, width := range []int64{360, 640, 768, 960, 1024, 1280, 1440, 1920} {
			tb.do(chromedp.EmulateViewport(width, 900))
			eval[bool](tb, `(scrollTo(0, 0), true)`)
			tb.wait("the banner to say what waits, though another page has switched the fault on", head+` === 'Relay (walrelay) killed' && `+text+`.endsWith('events wait. None is lost.')`)
			tb.fits(fmt.Sprintf("%d-%t", width, dark))
			tb.click("summary")
			tb.fits(fmt.Sprintf("%d-%t-details", width, dark))
			tb.click("summary")
			if width == 360 || width == 1440 {
				tb.click(`tr[data-event] td`)
				tb.wait("its records", `document.querySelector('#event [data-hop]') && !document.querySelector('#event-note').textContent.includes('Asking')`)
				eval[bool](tb, `(document.querySelector('#event').scrollIntoView(), true)`)
				tb.fits(fmt.Sprintf("%d-%t-event", width, dark))
				require.Empty(t, eval[[]string](tb, `[...document.querySelectorAll('#hops button')].flatMap(hop => (hop.click(), `+illFitting+`))`), width)
				require.Less(t, eval[int](tb, `document.querySelector('#event').offsetHeight`), 2500)
				tb.click("#event-close")
			}
		}
	}
	tb.click(killsTheRelay)
	tb.wait("the relay to be started", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'false'`)
	tb.balanced(d)
}

// growth is how many pixels the promise gets higher when its numbers have six digits. On a phone it
// takes as many lines as it needs.
const growth = `(() => {
	const promise = document.querySelector('#promise'), height = promise.offsetHeight;
	if (promise.clientWidth < 640) return 0;
	const numbers = [...promise.querySelectorAll('.rest b')], texts = numbers.map(b => b.textContent);
	for (const b of numbers) b.textContent = '123456';
	const grown = promise.offsetHeight - height;
	numbers.forEach((b, i) => { b.textContent = texts[i]; });
	return grown;
})()`

func (tb *tab) fits(name string) {
	tb.t.Helper()
	tb.wait("a state", `document.querySelector('#verdict').textContent.trim()`)
	if *looksTo != "" {
		png, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
		require.NoError(tb.t, err)
		require.NoError(tb.t, os.WriteFile(filepath.Join(*looksTo, name+".png"), png, 0o644))
	}
	require.Empty(tb.t, eval[[]string](tb, illFitting), name)
	require.Zero(tb.t, eval[int](tb, growth), "%s: the page moves when the numbers of the promise get longer", name)
	sizes := eval[[]int](tb, headings)
	require.Equal(tb.t, []int{1, 1}, sizes[:2], "%s: headings of several heights", name)
	if tb.is(`document.querySelector('#path').clientWidth > 840`) {
		require.Equal(tb.t, 1, sizes[2], "%s: the cards' headings do not begin at one height", name)
	}
}

// findsWhatDoesNotFit breaks the page in each way that illFitting looks for.
func (tb *tab) findsWhatDoesNotFit() {
	tb.t.Helper()
	for rule, why := range map[string]string{
		`width: 2rem; white-space: nowrap`: "is narrower than its text",
		`width: 2rem; white-space: normal`: "breaks Transaction",
		`font-size: 13px`:                  "is smaller than 14 px",
		`position: relative; left: 100vw`:  "ends outside of the window",
	} {
		eval[bool](tb, fmt.Sprintf(`(document.querySelector('[data-station="2"] h3').style.cssText = %q, true)`, rule))
		require.Contains(tb.t, strings.Join(eval[[]string](tb, illFitting), "\n"), why)
	}
	eval[bool](tb, `(document.querySelector('[data-station="2"] h3').removeAttribute('style'), true)`)
}
