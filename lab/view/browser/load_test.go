//go:build browser

package browser

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/memory"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// watch runs in the page before the page's own code. It measures how far things jump and how often
// the page changes. It also counts the changes between a click on an event and the answer, because
// that does not depend on the machine's speed. Rows of the table may move when a new one comes.
// Everything around them has to stand still, unless somebody uses the page. While the table of events fills for the first time
// the page grows, and what it suggests changes with the first arrival. The test says when that begins and ends.
const watch = `
window.watched = {shift: 0, shifts: [], jumps: [], changes: 0, freed: 0, answers: []};
new PerformanceObserver(list => { for (const e of list.getEntries()) {
	const largest = e.sources[0]?.node, element = largest?.closest ? largest : largest?.parentElement;
	if (e.hadRecentInput || Math.abs(e.startTime - connection) < 1500 || Math.abs(e.startTime - panel) < 1500 || element?.closest('tbody')) continue;
	if (e.startTime >= filling.from && e.startTime <= filling.to) continue;
	watched.shift += e.value;
	if (watched.shifts.length < 10) watched.shifts.push(e.value.toFixed(4) + ' ' + e.sources.map(s => s.node?.outerHTML?.slice(0, 100)).join(' | '));
}}).observe({type: 'layout-shift', buffered: true});
let hand = 0, connection = 0, panel = 0, places = new Map();
const filling = {from: Infinity, to: Infinity};
watched.fills = () => { filling.from = performance.now(); };
watched.isFull = () => { filling.to = performance.now(); };
for (const type of ['pointerdown', 'keydown']) document.addEventListener(type, () => { hand = performance.now(); }, true);
addEventListener('load', () => new MutationObserver(() => { connection = performance.now(); })
	.observe(document.querySelector('#connection'), {attributes: true, attributeFilter: ['class']}));
// An event may open and close long after the click, when the machine is busy. What is below it then moves.
addEventListener('load', () => new MutationObserver(() => { panel = performance.now(); })
	.observe(document.querySelector('#event'), {subtree: true, childList: true, characterData: true, attributes: true}));
const jumps = () => {
	const open = document.querySelector('#event')?.checkVisibility(), before = places;
	places = new Map();
	if (performance.now() >= filling.from && filling.to === Infinity) return;
	for (const e of document.querySelectorAll('main section, main h2, main h3, main figure, main form, main button, main thead, [data-station], #promise')) {
		if (e.closest('#event') || !e.checkVisibility()) continue;
		// Measured against the element that it scrolls with. The column at the side scrolls by
		// itself.
		const r = e.getBoundingClientRect(), side = e.closest('.side'), top = side ? side.getBoundingClientRect().top - side.scrollTop : -scrollY;
		places.set(e, [r.left + scrollX, r.top - top, r.width, r.height].map(Math.round).join());
		if (open || performance.now() - Math.max(hand, connection, panel) < 1500 || !before.has(e) || before.get(e) === places.get(e) || watched.jumps.length > 20) continue;
		watched.jumps.push(Math.round(performance.now()) + ' ms: ' + (e.id || e.dataset.station || e.textContent.slice(0, 40)) + ': ' + before.get(e) + ' -> ' + places.get(e));
	}
};
addEventListener('load', () => setTimeout(() => setInterval(jumps, 250), 1000));
const free = () => { if (!document.querySelector('#held').textContent.trim()) watched.freed++; };
addEventListener('load', () => new MutationObserver(free).observe(document.querySelector('#held'), {subtree: true, childList: true, characterData: true}));
let changed = false;
new MutationObserver(() => { if (!changed) { changed = true; watched.changes++; requestAnimationFrame(() => { changed = false; }); } })
	.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
document.addEventListener('pointerdown', e => {
	const row = e.target.closest?.('tr[data-event]');
	if (!row) return;
	const id = row.dataset.event, before = watched.changes;
	const look = () => {
		const panel = document.querySelector('#event');
		if (panel?.checkVisibility() && panel.outerHTML.includes(id)) watched.answers.push(watched.changes - before);
		else requestAnimationFrame(look);
	};
	requestAnimationFrame(look);
}, true);`

// weight is what the page keeps after a garbage collection.
type weight struct {
	heap     float64
	nodes    int64 // of the DOM, also detached ones that are still referred to
	elements int
	listener int64
}

func (tb *tab) weigh() (w weight) {
	tb.t.Helper()
	for range 2 {
		_, err := chromedp.Call(tb.ctx, heapprofiler.CollectGarbage, cdp.Empty{})
		require.NoError(tb.t, err)
	}
	usage, err := chromedp.Call(tb.ctx, runtime.GetHeapUsage, cdp.Empty{})
	require.NoError(tb.t, err)
	counters, err := chromedp.Call(tb.ctx, memory.GetDOMCounters, cdp.Empty{})
	require.NoError(tb.t, err)
	return weight{usage.UsedSize, counters.Nodes, eval[int](tb, `document.querySelectorAll('*').length`), counters.JsEventListeners}
}

// Two minutes of 500 events a second, in a window that somebody uses. With -short, as in CI, it is
// one minute. It runs beside no other test, because it takes the whole machine.
func TestBearsTwoMinutesOfLoad(t *testing.T) {
	d := start(t, newFolder(t), 0)
	l := desk
	l.script = watch
	tb := show(t, d, l)
	// The server cuts off a page that has left a frame unread for 20 s, as one does that had no turn. The browser notes that, and
	// the page connects again.
	tb.allowed = []string{"net::ERR_INCOMPLETE_CHUNKED_ENCODING (" + d.view + "/live"}
	eval[bool](tb, `(watched.fills(), true)`)
	tb.setLoad(d, 500)
	tb.wait("a full table, and a suggestion that follows from an arrival", `document.querySelectorAll('tr[data-event]').length === 40 && /experiment/.test(document.querySelector('#next-do').textContent)`)
	eval[bool](tb, `(watched.isFull(), true)`)
	began, before := time.Now(), d.state(t).Totals
	clicks := 0 // while the table stood still
	until := func(seconds int) {
		// Somebody opens an event every few seconds, and closes it again.
		for time.Since(began) < time.Duration(seconds)*time.Second || d.state(t).Totals.Committed-before.Committed < 100*seconds || clicks == 0 {
			if tb.clickAnEvent() {
				clicks++
			}
			require.Less(t, time.Since(began), 10*time.Minute, "%d events, and %d clicks on a table that stood still", d.state(t).Totals.Committed-before.Committed, clicks)
			time.Sleep(3 * time.Second)
		}
	}
	early, late := 30, 120 // seconds
	if testing.Short() {
		early, late = 20, 60
	}
	until(early)
	first, earlyRSS := tb.weigh(), d.resident(t)
	changes, from := eval[int](tb, `watched.changes`), time.Now()
	frames := 0
	d.frames(t, func(at time.Time, _ []byte) bool {
		frames++
		return time.Since(from) < 10*time.Second
	})
	perSecond := float64(frames-1) / time.Since(from).Seconds()
	drawn := float64(eval[int](tb, `watched.changes`)-changes) / time.Since(from).Seconds()
	until(late)
	last, lateRSS := tb.weigh(), d.resident(t)
	after := d.state(t).Totals
	rate := float64(after.Committed-before.Committed) / time.Since(began).Seconds()
	answers := eval[[]int](tb, `watched.answers`)
	shift := eval[float64](tb, `watched.shift`)
	t.Logf("%.0f events/s, %.1f frames/s sent, %.1f drawn; early %+v, late %+v; server %d MiB, then %d; answers after %d changes; shift %.4f %q",
		rate, perSecond, drawn, first, last, earlyRSS>>20, lateRSS>>20, answers, shift, eval[[]string](tb, `watched.shifts`))

	require.LessOrEqual(t, perSecond, 10.5, "frames a second")
	require.Greater(t, frames, 1, "frames")
	require.LessOrEqual(t, drawn, 12.0, "changes of the page a second")
	require.LessOrEqual(t, last.heap, first.heap*1.3+1e6, "the heap grows")
	require.LessOrEqual(t, last.nodes, first.nodes+first.nodes/5+100, "the DOM grows")
	require.LessOrEqual(t, last.elements, 4000, "the DOM is large")
	require.LessOrEqual(t, last.listener, first.listener+50, "listeners pile up")
	require.LessOrEqual(t, lateRSS, earlyRSS+earlyRSS/2+64<<20, "the server grows")
	require.Less(t, shift, 0.1, "the layout jumps")
	require.Empty(t, eval[[]string](tb, `watched.jumps`), "the layout jumps")
	require.NotEmpty(t, answers)
	slices.Sort(answers)
	require.LessOrEqual(t, answers[len(answers)/2], 5, "clicks on an event are answered late: %d", answers)
	require.LessOrEqual(t, answers[len(answers)*9/10], 15, "clicks on an event are answered late: %d", answers)
	tb.setLoad(d, 0)
	labtest.Eventually(t, "every event to arrive", func() bool {
		n := d.state(t).Totals
		return n.OnBus == n.Committed && n.Lost == 0
	})
	tb.connected()
}

// clickAnEvent clicks on an event as a person does. It moves to where the event is, and clicks on
// whatever is there by then. It reports whether the table stood still meanwhile, and then requires
// that the event opened which was there. The table stands still for a few seconds, which a busy
// machine may need for the click alone.
func (tb *tab) clickAnEvent() (stood bool) {
	tb.t.Helper()
	place := eval[map[string]float64](tb, `(() => { const row = document.querySelector('tr[data-event]'); row.scrollIntoView({block: 'center'});
		const r = row.cells[0].getBoundingClientRect(); return {x: r.left + r.width / 2, y: r.top + r.height / 2}; })()`)
	tb.do(chromedp.MouseEvent(chromedp.MouseMoved, place["x"], place["y"]))
	time.Sleep(400 * time.Millisecond) // a person's time from seeing to clicking
	const still = `document.querySelector('#held').textContent.trim() ? watched.freed : -1`
	before := eval[int](tb, still)
	seen := eval[string](tb, fmt.Sprintf(`document.elementFromPoint(%f, %f)?.closest('tr[data-event]')?.dataset.event ?? ''`, place["x"], place["y"]))
	time.Sleep(200 * time.Millisecond)
	answered := eval[int](tb, `watched.answers.length`)
	tb.do(chromedp.MouseClickXY(place["x"], place["y"]))
	tb.wait("the click to be answered", fmt.Sprintf(`watched.answers.length > %d`, answered))
	require.NotEmpty(tb.t, seen, "no event is where one was a moment ago")
	opened := tb.is(fmt.Sprintf(`document.querySelector('#event').outerHTML.includes(%q)`, seen))
	if stood = before >= 0 && eval[int](tb, still) == before; stood {
		require.True(tb.t, opened, "another event opened than the one that was seen")
	}
	tb.do(chromedp.KeyEvent("\x1b"))
	return stood
}

// resident returns the memory of lab itself, which runs the view, the API, the services' listener
// and the consumer.
func (d *dev) resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.Pid))
	if os.IsNotExist(err) {
		return 0 // this system has no /proc
	}
	require.NoError(t, err)
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(t, found)
	n, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return n << 10
}
