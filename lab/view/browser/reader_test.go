//go:build browser

package browser

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

func keepsItsStateInTheURL(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	d.post(t, domain.Named("Linked Car"))
	id := tb.row("Linked Car")
	tb.click(`tr[data-event="` + id + `"] td`)
	tb.wait("its records", shows(id))
	address := eval[string](tb, `location.href`)
	require.NotContains(t, address, "token")

	other := open(t, address, desk)
	other.connected()
	other.wait("the same event in another tab", shows(id))
	// Back closes it, as in any page.
	tb.do(chromedp.NavigateBack())
	tb.wait("the panel to close", `!document.querySelector('#event')?.checkVisibility() || !(`+shows(id)+`)`)
}

// isDrivenByKeyboard reaches everything by Tab, and uses it by Enter, Space and the arrows.
func isDrivenByKeyboard(t *testing.T, d *dev) {
	d.post(t, domain.Named("Reached By Tab"))
	tb := show(t, d, desk)
	tb.row("Reached By Tab")
	const focused = `(e => e.closest('tr[data-event]') ? 'event ' + e.closest('tr[data-event]').dataset.event : e.dataset.switch ? 'switch ' + e.dataset.switch
		: e.dataset.tour ? 'tour ' + e.dataset.tour : e.id ? '#' + e.id : e.name ? 'field ' + e.name : e === document.body ? 'body' : e.tagName)(document.activeElement)`
	// to presses Tab until the focus is there.
	to := func(what string) {
		t.Helper()
		var passed []string
		for range 200 {
			tb.do(chromedp.KeyEvent(kb.Tab))
			at := eval[string](tb, focused)
			passed = append(passed, at)
			if at == what {
				outline := eval[string](tb, `(s => s.outlineStyle + ' ' + s.outlineWidth + ' ' + s.boxShadow)(getComputedStyle(document.activeElement))`)
				require.NotRegexp(t, `^(none \S+|\S+ 0px) none$`, outline, "nothing shows that the focus is at %s", what)
				return
			}
		}
		require.Fail(t, "Tab does not reach "+what, "it passes %v", passed)
	}
	m := d.meta(t)
	require.NotEmpty(t, m.Switches)
	for _, one := range m.Switches {
		to("switch " + one.Name)
	}
	for _, one := range m.Tour {
		to(fmt.Sprintf("tour %d", one.N))
	}
	to("#theme")
	theme := `document.documentElement.outerHTML.slice(0, 200) + getComputedStyle(document.body).backgroundColor`
	before := eval[string](tb, theme)
	tb.do(chromedp.KeyEvent(" "))
	require.NotEqual(t, before, eval[string](tb, theme), "Space does not change the theme")

	typed := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(domain.Named("Typed By Hand")), &typed))
	for _, field := range domain.Fields {
		for eval[string](tb, `document.activeElement.name ?? ''`) != field.Name {
			tb.do(chromedp.KeyEvent(kb.Tab))
		}
		tb.do(chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl)), chromedp.KeyEvent(fmt.Sprint(cmp.Or(typed[field.Name], any("Red")))))
	}
	tb.do(chromedp.KeyEvent(kb.Enter))
	tb.row("Typed By Hand")

	to("#load")
	tb.do(chromedp.KeyEvent(kb.ArrowRight))
	labtest.Eventually(t, "the arrow key to set a load", func() bool { return d.state(t).Load > 0 })
	tb.do(chromedp.KeyEvent(kb.End))
	labtest.Eventually(t, "End to set the highest load", func() bool { return d.state(t).Load == m.MaxLoad })
	tb.wait("the value beside the slider", fmt.Sprintf(`document.querySelector('#load-value').textContent.includes('%d')`, m.MaxLoad))
	tb.do(chromedp.KeyEvent(kb.Home))
	labtest.Eventually(t, "Home to end the load", func() bool { return d.state(t).Load == 0 })

	to("switch duplicate")
	tb.do(chromedp.KeyEvent(" "))
	labtest.Eventually(t, "Space to switch it on", func() bool { return on(d.state(t), "duplicate") })
	tb.wait("the switch to say so", `document.querySelector('[data-switch=duplicate]').getAttribute('aria-checked') === 'true'`)
	require.Equal(t, "switch duplicate", eval[string](tb, focused), "the focus is lost by using it")
	tb.do(chromedp.KeyEvent(kb.Enter))
	labtest.Eventually(t, "Enter to switch it off", func() bool { return !on(d.state(t), "duplicate") })

	d.post(t, domain.Named("Opened By Enter"))
	id := tb.row("Opened By Enter")
	to("event " + id)
	tb.do(chromedp.KeyEvent(kb.Enter))
	tb.wait("its records", shows(id))
	tb.do(chromedp.KeyEvent(kb.Escape))
	tb.wait("Escape to close it", `!(`+shows(id)+`)`)
	require.Equal(t, "event "+id, eval[string](tb, focused), "the focus does not come back to where the reader was")
	tb.balanced(d)
}

func on(s state, name string) bool {
	for _, one := range s.Switches {
		if one.Name == name {
			return one.On
		}
	}
	return false
}

func fitsANarrowWindow(t *testing.T, d *dev) {
	tb := show(t, d, look{width: 360, height: 740})
	d.post(t, domain.Named("Narrow "+strings.Repeat("M", 90)))
	id := tb.row("Narrow")
	fits := func(what string) {
		t.Helper()
		wide := eval[[]string](tb, `(() => { const over = document.documentElement.scrollWidth - innerWidth;
			return over <= 0 ? [] : [over + ' px too wide', ...[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
				.slice(0, 8).map(e => e.outerHTML.slice(0, 120))]; })()`)
		require.Empty(t, wide, "%s scrolls sideways", what)
	}
	fits("the page")
	for _, one := range d.meta(t).Switches {
		box := eval[map[string]float64](tb, fmt.Sprintf(`(r => ({left: r.left, right: r.right, height: r.height}))(document.querySelector('[data-switch="%s"]').getBoundingClientRect())`, one.Name))
		require.GreaterOrEqual(t, box["left"], 0.0, one.Name)
		require.LessOrEqual(t, box["right"], 360.0, one.Name)
		require.GreaterOrEqual(t, box["height"], 24.0, "%s: too small for a finger", one.Name)
	}
	tb.click(`tr[data-event="` + id + `"] td`)
	tb.wait("its records", shows(id))
	fits("an open event")
	require.GreaterOrEqual(t, eval[float64](tb, `Math.min(...[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('svg') &&
		[...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => parseFloat(getComputedStyle(e).fontSize)))`), 14.0, "a text is too small to read")
}

// moving counts what moves by itself within some seconds. It counts running animations, and new
// pictures on a canvas.
const moving = `new Promise(done => {
	let animations = 0; const pictures = new Set(), until = performance.now() + 2500;
	const look = () => {
		animations = Math.max(animations, document.getAnimations().filter(a => a.playState === 'running' && a.effect.getComputedTiming().activeDuration > 0).length);
		for (const canvas of document.querySelectorAll('canvas')) pictures.add(canvas.toDataURL());
		performance.now() < until ? setTimeout(look, 50) : done(animations + Math.max(0, pictures.size - document.querySelectorAll('canvas').length));
	};
	look();
})`

func standsStill(t *testing.T, d *dev) {
	lively, still := desk, desk
	still.still = true
	one, other := show(t, d, lively), show(t, d, still)
	one.setLoad(d, 10)
	labtest.Eventually(t, "events to move along the path", func() bool { return eval[int](one, moving) > 0 })
	require.Zero(t, eval[int](other, moving), "things move though the reader asked for less of it")
	one.setLoad(d, 0)
	one.balanced(d)
}

func isAccessible(t *testing.T, d *dev) {
	d.post(t, domain.Named("Looked At"))
	for name, l := range map[string]look{
		"wide": {width: 1400, height: 900, still: true}, "narrow": {width: 360, height: 740, still: true, dark: true},
	} {
		tb := show(t, d, l)
		require.Equal(t, l.dark, tb.dark(), "the page does not follow the reader's theme")
		does := func() string { return map[bool]string{false: "Darken", true: "Lighten"}[tb.dark()] }
		require.Equal(t, does(), tb.text("#theme"), "the button does not name what it does")
		id := tb.row("Looked At")
		tb.axe(name)
		tb.click(`tr[data-event="` + id + `"] td`)
		tb.wait("its records", shows(id))
		tb.axe(name + ", with an event")
		tb.click("#theme")
		require.Equal(t, !l.dark, tb.dark(), "the page's own switch does not change the theme")
		require.Equal(t, does(), tb.text("#theme"), "the button does not name what it does")
		tb.axe(name + ", with an event, the other theme")
		tb.do(chromedp.Reload())
		tb.connected()
		require.Equal(t, !l.dark, tb.dark(), "the theme is forgotten")
	}
	// Also while something is broken, which has colours of its own.
	tb := show(t, d, look{width: 1400, height: 900, still: true})
	const breaks = `[data-switch="throttle-kinesis"]`
	tb.click(breaks)
	tb.wait("the switch to be on", `document.querySelector('`+breaks+`').getAttribute('aria-checked') === 'true'`)
	d.post(t, domain.Named("Held Up"))
	tb.axe("broken")
	tb.click("#theme")
	tb.axe("broken, the other theme")
	tb.click(breaks)
	tb.wait("the switch to be off", `document.querySelector('`+breaks+`').getAttribute('aria-checked') === 'false'`)
	tb.balanced(d)
}

func contractsAreAccessible(t *testing.T, d *dev) {
	for name, l := range map[string]look{
		"wide": {width: 1400, height: 900, still: true}, "narrow": {width: 360, height: 740, still: true, dark: true},
	} {
		tb := show(t, d, l)
		tb.click(`footer a[href="/contracts"]`)
		tb.wait("the contracts", `document.querySelector('#event-CarCreated')`)
		tb.axe("the contracts, " + name)
		tb.click("details summary")
		tb.click("#theme")
		require.Equal(t, !l.dark, tb.dark(), "the page's own switch does not change the theme")
		tb.axe("the contracts, " + name + ", the other theme")
	}
}

// dark reports whether the page's background is nearer to black than to white.
func (tb *tab) dark() bool {
	tb.t.Helper()
	return eval[bool](tb, `(() => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
		for (const e of [document.documentElement, document.body]) { c.fillStyle = getComputedStyle(e).backgroundColor; c.fillRect(0, 0, 1, 1); }
		const [r, g, b, a] = c.getImageData(0, 0, 1, 1).data; return a > 0 && r + g + b < 384; })()`)
}

// axe runs axe-core on the page as it is.
func (tb *tab) axe(what string) {
	tb.t.Helper()
	source, err := os.ReadFile(filepath.Join(root, "node_modules", "axe-core", "axe.min.js"))
	require.NoError(tb.t, err)
	if !tb.is(`window.axe`) {
		tb.do(chromedp.Evaluate[chromedp.Void](string(source)))
	}
	var result struct {
		Stale      bool
		Passes     int
		Violations []struct {
			ID, Impact, Help string
			Nodes            []string
		}
	}
	// On a busy machine axe-core blocks the page for longer than a server may be silent. The page
	// is then grey.
	labtest.Eventually(tb.t, "a look at a page that is connected", func() bool {
		if tb.is(`document.querySelector('#connection')`) { // the page of the contracts has no connection
			tb.connected()
		}
		found := eval[string](tb, `(async () => {
			let stale = document.body.classList.contains('stale');
			const observer = new MutationObserver(() => { stale ||= document.body.classList.contains('stale'); });
			observer.observe(document.body, {attributes: true});
			const r = await axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']});
			observer.disconnect();
			return JSON.stringify({stale, passes: r.passes.length, violations: r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help,
				nodes: v.nodes.map(n => n.html.slice(0, 160) + ' ' + n.failureSummary)}))});
		})()`)
		result.Violations = nil
		require.NoError(tb.t, json.Unmarshal([]byte(found), &result))
		return !result.Stale
	})
	require.Greater(tb.t, result.Passes, 10, "axe-core looked at something")
	for _, v := range result.Violations {
		text := fmt.Sprintf("%s: %s (%s): %s\n%s", what, v.ID, v.Impact, v.Help, strings.Join(v.Nodes, "\n"))
		if v.Impact == "serious" || v.Impact == "critical" {
			require.Fail(tb.t, "axe-core", text)
		}
		tb.t.Log(text)
	}
}
