//go:build browser

package browser

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

const verdict = `document.querySelector('#verdict').textContent`

// The page says that everything is published only if it has polled after the last commit. A lock
// makes its poll wait.
func saysNothingFromAnOldReading(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	d.post(t, domain.Named("Seen In Time"))
	tb.balanced(d)
	tb.wait("the verdict", verdict+`.startsWith('Everything')`)
	tb.click(killsTheRelay)
	tb.wait("the relay to be killed", `document.querySelector('`+killsTheRelay+`').getAttribute('aria-checked') === 'true'`)
	tx, err := d.connect(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE car_stats") // The poll waits for this lock. createCar does not.
	require.NoError(t, err)
	d.post(t, domain.Named("Not Seen Yet"))
	tb.wait("another verdict", `!`+verdict+`.startsWith('Everything')`)
	tb.wait("the age of the numbers", `document.body.classList.contains('old') && document.querySelector('#reading').textContent.includes('as of')`)
	require.NotContains(t, tb.text("#verdict"), "Everything")
	require.NoError(t, tx.Rollback(t.Context()))
	tb.wait("the event that waits", verdict+`.includes('1 event')`)
	tb.wait("fresh numbers", `!document.body.classList.contains('old')`)
	tb.click(killsTheRelay)
	tb.balanced(d)
}

// The page says plainly that a car is not counted, if no event on its way explains the difference.
func saysThatACarIsNotCounted(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	d.post(t, domain.Named("Counted Once"))
	tb.balanced(d)
	conn := d.connect(t)
	change := func(by int) {
		_, err := conn.Exec(t.Context(), domain.Miscount, by)
		require.NoError(t, err)
	}
	change(-1)
	labtest.Eventually(t, "the page to say so", func() bool {
		says := tb.text("#verdict")
		require.NotContains(t, says, "still counting")
		return says != "" && tb.is(verdict+`.startsWith('1 car is not counted, and nothing is on its way') && `+verdict+`.includes('replay')`)
	})
	change(1)
	tb.balanced(d)
}
