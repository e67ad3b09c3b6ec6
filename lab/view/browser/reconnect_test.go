//go:build browser

package browser

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
)

// The page outlives `make dev`. It says that the server is gone, and goes on by itself when the
// view is back with another token.
func TestReconnects(t *testing.T) {
	t.Parallel()
	dir, port := newFolder(t), twoPorts(t)
	first := start(t, dir, port)
	tb := show(t, first, desk)
	tb.allowed = []string{"net::ERR_", "Failed to load resource"} // the browser itself notes that the server is gone
	first.post(t, domain.Named("Before Kill"))
	tb.row("Before Kill")

	first.kill(t)
	tb.wait("the page to say that it is disconnected", `/disconnected/i.test(document.querySelector('#connection').textContent)`)
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
	tb.wait("the page to say that it is disconnected", `/disconnected/i.test(document.querySelector('#connection').textContent)`)
	require.NotContains(t, strings.ToLower(string(second.printed(t))), "panic")
}
