//go:build browser

package browser

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

const (
	head = `document.querySelector('#next-head').textContent`
	text = `document.querySelector('#next-text').textContent`
)

// The page shows waiting events where they wait, follows the created event to there and on, and
// says in the banner how it ended.
func showsWhatWaits(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	require.True(t, tb.is(`(sizes => Math.max(...sizes.values()) === sizes.get(document.querySelector('#promise .lost b')))(new Map(
		[...document.querySelectorAll('body *')].map(e => [e, parseFloat(getComputedStyle(e).fontSize)])))`), "the promise is not the largest thing on the page")
	tb.click(killsTheRelay)
	tb.wait("the state, not the order", head+` === 'Relay (walrelay) killed'`)
	require.Equal(t, "Relay (walrelay) killed", tb.text(`[data-station="3"] .badge`), "which program is killed")
	require.Contains(t, tb.text("#promise"), "counted by the subscriber", "who counts")
	tb.click("#car-form button")
	tb.wait("the event to wait", `document.querySelector('#followed').checkVisibility() && document.querySelector('#followed').textContent.includes('waits before ③')`)
	const station = `document.querySelector('[data-station="3"]')`
	tb.wait("the number of those that wait", station+`.querySelector('[data-value=waiting]').textContent === '1'`)
	require.Equal(t, "40px", eval[string](tb, `getComputedStyle(`+station+`.querySelector('[data-value=waiting]')).fontSize`))
	require.True(t, tb.is(`+getComputedStyle(document.querySelector('#dots')).zIndex < +getComputedStyle(document.querySelector('.stop')).zIndex`), "dots cover the signs of the stations")
	tb.wait("a pile before the station", station+`.querySelector('.pile').getBoundingClientRect().width > 4`)
	tb.wait("nothing to come along the line after it", `getComputedStyle(document.querySelector('[data-station="4"] .line')).borderTopStyle === 'dashed'`)
	tb.wait("what the banner says of it", text+`.startsWith('1 event waits')`)
	tb.click(killsTheRelay)
	tb.wait("the outcome", head+` === 'Relay (walrelay) killed: over' && `+text+`.endsWith('arrived. 0 events are lost.')`)
	tb.wait("the end of its way", `document.querySelector('#followed').textContent.includes('has arrived')`)
	tb.wait("an empty pile", station+`.querySelector('.pile').getBoundingClientRect().width === 0`)
	tb.balanced(d)
}

// The banner follows the latest deed, also a fault that strikes once, and a count says what it
// counts.
func tellsTheLastDeed(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	tb.click(`[data-switch="poison"]`)
	tb.wait("what has become of the poison", head+` === 'Poison put' && `+text+`.startsWith('It is in the failure queue')`)
	tb.wait("a count with its noun", `/^[\d,]+ records? put$/.test(document.querySelector('[data-switch=poison]').closest('li').querySelector('.struck').textContent)`)
	tb.click(`[data-switch="drop-slot"]`)
	tb.wait("what has become of the slot", head+` === 'Slot dropped' && `+text+`.includes('a new slot')`)
	// A fault that lets events pass does not cut the line.
	const twice, after = `[data-switch="duplicate"]`, `getComputedStyle(document.querySelector('.map'), '::after').borderTopStyle`
	tb.click(twice)
	tb.wait("the bus to be broken", `document.querySelector('[data-station="6"]').classList.contains('faulty')`)
	require.Equal(t, "solid", eval[string](tb, after))
	tb.click(twice)
	const down = `[data-switch="bus-down"]`
	tb.click(down)
	tb.wait("a line that nothing comes along", after+` === 'dashed'`)
	tb.click(down)
	tb.wait("the line to be whole", after+` === 'solid'`)
	tb.balanced(d)
}

// While a part of the path is out of sight on a narrow window, a small one is in sight: on the first screen, and beside the switches.
func keepsThePathInSight(t *testing.T, d *dev) {
	for _, width := range []int64{360, 1024} {
		tb := show(t, d, look{width: width, height: 740, still: true})
		const down = `document.querySelector('#mini li:nth-child(3)')`
		inSight := `(r => r.width > 0 && r.top >= 0 && r.bottom <= innerHeight)(` + down + `.getBoundingClientRect())`
		eval[bool](tb, `(document.querySelector('#path').scrollIntoView(), true)`)
		tb.wait("no small path beside the path", `!document.querySelector('#mini').checkVisibility()`)
		eval[bool](tb, `(document.querySelector('`+killsTheRelay+`').scrollIntoView({block: 'center'}), true)`)
		tb.wait("the small path", inSight)
		tb.click(killsTheRelay)
		tb.wait("it to show what is broken", down+`.className === 'faulty' && !document.querySelector('`+killsTheRelay+`').hasAttribute('aria-busy')`)
		if width == 360 { // the stations are one below the other, and this one is not on the first screen
			eval[bool](tb, `(scrollTo(0, 0), true)`)
			require.True(t, tb.is(`document.querySelector('[data-station="3"]').getBoundingClientRect().bottom > innerHeight`))
			tb.wait("the first screen to show what is broken", inSight+` && `+down+`.className === 'faulty'`)
		}
		tb.click(killsTheRelay)
		tb.wait("it to show that it is mended", down+`.className === ''`)
	}
}

// A speaker decides when a step begins, and makes the page larger by one key.
func servesASpeaker(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	size := eval[float64](tb, `parseFloat(getComputedStyle(document.documentElement).fontSize)`)
	tb.do(chromedp.KeyEvent(kb.F2))
	require.Greater(t, eval[float64](tb, `parseFloat(getComputedStyle(document.documentElement).fontSize)`), 1.4*size)
	require.Empty(t, eval[[]string](tb, illFitting))
	tb.do(chromedp.Reload())
	tb.connected()
	require.Equal(t, "Shrink", tb.text("#size"), "the size is forgotten")
	tb.do(chromedp.KeyEvent(kb.F2))
	require.InDelta(t, size, eval[float64](tb, `parseFloat(getComputedStyle(document.documentElement).fontSize)`), 0.01)

	tb.click("#by-hand")
	tb.click(`button[data-tour="1"]`)
	steps := len(d.meta(t).Tour[0].Steps)
	for range steps - 1 {
		tb.wait("a step to wait", `document.querySelector('#next-do').checkVisibility() && document.querySelector('#next-do').textContent === 'Next step'`)
		before := tb.text("#next-head")
		tb.click("#next-do")
		tb.wait("the next step", `document.querySelector('#next-head').textContent !== '`+before+`'`)
	}
	tb.wait("its result", `document.querySelector('[data-tour-result="1"].passed')`)
	tb.balanced(d)
}
