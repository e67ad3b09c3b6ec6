//go:build browser

package browser

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

const disconnected = `/disconnected/i.test(document.querySelector('#connection').textContent)`

// watchConnection keeps what the page says of its connection. The page looks for silence when the test says so, because a test that gets
// no turn for seconds would make the server silent for longer.
const watchConnection = `
window.said = [];
let look = null;
window.setInterval = f => { if (look) throw new Error('a second interval'); look = f; };
window.looks = n => { while (n-- > 0) look(); return true; };
addEventListener('load', () => new MutationObserver(() => said.push(document.querySelector('#connection').textContent))
	.observe(document.querySelector('#connection'), {subtree: true, childList: true, characterData: true}));`

// The page outlives `make dev`. It says that the server is gone, and goes on by itself when the
// view is back with another token.
func TestReconnects(t *testing.T) {
	t.Parallel()
	dir, port := newFolder(t), labtest.TwoPorts(t)
	first := start(t, dir, port)
	l := desk
	l.script = watchConnection
	tb := show(t, first, l)
	tb.allowed = []string{"net::ERR_", "Failed to load resource"} // the browser itself notes that the server is gone
	first.post(t, domain.Named("Before Kill"))
	tb.row("Before Kill")

	// A busy machine may not run the server for seconds. The server is not gone then. The page looks
	// once a second, and its seconds are longer on such a machine, too.
	require.NoError(t, first.process.Signal(syscall.SIGSTOP))
	eval[bool](tb, `looks(14)`)
	require.NoError(t, first.process.Signal(syscall.SIGCONT))
	first.post(t, domain.Named("After Stop"))
	tb.row("After Stop")
	require.Equal(t, []string{"connected"}, eval[[]string](tb, `said`))

	// A server that sends nothing for long is gone, also if it keeps its connections.
	require.NoError(t, first.process.Signal(syscall.SIGSTOP))
	eval[bool](tb, `looks(15)`)
	require.True(t, tb.is(disconnected))
	require.NoError(t, first.process.Signal(syscall.SIGCONT))
	tb.connected()

	first.kill(t)
	tb.wait("the page to say that it is disconnected", disconnected)
	require.True(t, tb.is(`document.querySelector('#connection').checkVisibility()`))

	second := start(t, dir, port)
	require.Equal(t, first.view, second.view, "the view came back elsewhere")
	tb.connected()
	second.post(t, domain.Named("After Start"))
	tb.row("After Start")
	// What the page does now needs the new token.
	tb.fill(domain.Named("By Form"))
	tb.click("#car-form button")
	tb.row("By Form")
	tb.balanced(second)
	require.Equal(t, 2, tb.promise().cars)

	// Ctrl-C, and the page says so, too.
	second.stop(t)
	tb.wait("the page to say that it is disconnected", disconnected)
	require.NotContains(t, strings.ToLower(string(second.printed(t))), "panic")
}
