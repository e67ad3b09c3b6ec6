//go:build browser

package browser

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// names are the faults that the view offers.
var names = []string{"kill-relay", "stop-postgres", "throttle-kinesis", "fail-entries", "bus-down", "drop-slot", "poison", "queue-down", "duplicate", "two-relays"}

// Each fault strikes running traffic, its station says so, and after it is off nothing is lost.
func switchesBreakAndMend(t *testing.T, d *dev) {
	m := d.meta(t)
	offered := []string{}
	for _, one := range m.Switches {
		offered = append(offered, one.Name)
	}
	require.ElementsMatch(t, names, offered)
	tb := show(t, d, desk)
	tb.allowed = []string{"status of 5"} // a car that is posted while PostgreSQL is stopped
	tb.setLoad(d, 20)
	for _, one := range m.Switches {
		began := time.Now()
		selector := `[data-switch="` + one.Name + `"]`
		for what, text := range map[string]string{"what it does": one.Text, "what AWS would do": one.AWS, "its name": one.Label} {
			require.NotEmpty(t, text, one.Name)
			require.True(t, tb.is(fmt.Sprintf(`document.body.textContent.replace(/\s+/g, ' ').includes(%q)`, text)), "%s: the page does not say %s", one.Name, what)
		}
		before := d.state(t)
		tb.click(selector)
		if !one.Once {
			tb.wait(one.Name+" to be on", `document.querySelector('`+selector+`').getAttribute('aria-checked') === 'true'`)
			tb.wait("the station to say so", fmt.Sprintf(`document.querySelector('[data-station="%d"]').textContent.includes(%q)`, one.Hop, one.State))
		}
		if one.Name == "queue-down" { // it strikes only when something is parked
			tb.click(`[data-switch="poison"]`)
		}
		labtest.Eventually(t, one.Name+" to strike", func() bool { return d.state(t).struck(one.Name) > 0 })
		if !one.Once {
			tb.click(selector)
			tb.wait(one.Name+" to be off", `document.querySelector('`+selector+`').getAttribute('aria-checked') === 'false'`)
			tb.wait("the station to be well", fmt.Sprintf(`!document.querySelector('[data-station="%d"]').textContent.includes(%q)`, one.Hop, one.State))
		}
		labtest.Eventually(t, "events to arrive again", func() bool {
			s := d.state(t)
			return s.Totals.OnTheWay < 40 && s.Totals.Counted > before.Totals.Cars
		})
		require.Zero(t, tb.promise().lost, one.Name)
		switch one.Name {
		case "poison", "queue-down":
			labtest.Eventually(t, "the poison to be parked", func() bool { return d.state(t).Totals.Parked > before.Totals.Parked })
		case "duplicate":
			labtest.Eventually(t, "the page to tell of duplicates", func() bool { return tb.promise().suppressed > 0 })
		}
		t.Logf("%s: %s", one.Name, time.Since(began).Round(time.Millisecond))
	}
	tb.setLoad(d, 0)
	tb.balanced(d)
	require.NotZero(t, tb.promise().cars)
}

// Each experiment of the tour passes when it is run from the page. With -pictures their pictures are written, and the first one as a film.
func tourPasses(t *testing.T, d *dev) {
	m := d.meta(t)
	require.Len(t, m.Tour, 5)
	tb := show(t, d, look{width: pictureWidth, height: pictureHeight, still: true})
	tb.allowed = []string{"status of 5"}
	first := newFilm(t, d)
	for _, one := range m.Tour {
		began := time.Now()
		result := fmt.Sprintf(`[data-tour-result="%d"]`, one.N)
		tb.click(fmt.Sprintf(`button[data-tour="%d"]`, one.N))
		labtest.Eventually(t, fmt.Sprintf("experiment %d to begin", one.N), func() bool { return d.state(t).Tour.Running == one.N })
		pictured := false
		shoot := func() {
			if one.N == 1 {
				first.shoot()
			}
		}
		for deadline := time.Now().Add(labtest.Patience); ; time.Sleep(100 * time.Millisecond) {
			s := d.state(t)
			shoot()
			if !pictured && broken(s) {
				for seen := time.Now().Add(1500 * time.Millisecond); time.Now().Before(seen); time.Sleep(100 * time.Millisecond) {
					shoot() // until there is something to see
				}
				tb.picture(fmt.Sprintf("failure-lab/tour-%d.png", one.N))
				pictured = true
			}
			if s.Tour.Running == 0 {
				break
			}
			require.True(t, time.Now().Before(deadline), "experiment %d does not end", one.N)
		}
		require.True(t, pictured, "experiment %d: no fault was seen", one.N)
		tb.wait("its result", `document.querySelector('`+result+`.passed, `+result+`.failed')`)
		require.True(t, tb.is(`document.querySelector('`+result+`.passed')`), "experiment %d: %s", one.N, tb.text(result))
		for _, s := range d.state(t).Switches {
			require.False(t, s.On, "experiment %d leaves %s on", one.N, s.Name)
		}
		require.Zero(t, d.state(t).Load)
		tb.balanced(d)
		if one.N == 1 {
			first.save("view.gif")
		}
		t.Logf("%d. %s: %s", one.N, one.Title, time.Since(began).Round(time.Millisecond))
	}
}

// The pictures of README, in both themes, show traffic and a dead relay.
func showsADeadRelay(t *testing.T, d *dev) {
	tb := show(t, d, look{width: pictureWidth, height: pictureHeight})
	const kills = `document.querySelector('[data-switch="kill-relay"]')`
	before := d.state(t).Totals.OnBus
	tb.setLoad(d, 60)
	labtest.Eventually(t, "some seconds of traffic", func() bool { return d.state(t).Totals.OnBus > before+400 })
	eval[bool](tb, `(`+kills+`.click(), true)`)
	labtest.Eventually(t, "events to wait in the WAL", func() bool { return d.state(t).Totals.OnTheWay > 120 })
	tb.picture("view.png")
	eval[bool](tb, `(document.querySelector('#theme').click(), true)`)
	require.True(t, tb.dark())
	tb.picture("view-dark.png")
	eval[bool](tb, `(`+kills+`.click(), true)`)
	tb.setLoad(d, 0)
	tb.balanced(d)
}

func broken(s state) bool {
	for _, station := range s.Stations {
		if len(station.Faults) > 0 {
			return true
		}
	}
	return false
}

// A page that always says "0 lost" would pass all tests above. Here an event is lost for good.
// While the relay is down, the test moves the slot past the event, so that nothing ever reads it
// from the WAL.
func tellsOfARealLoss(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	tb.balanced(d)
	const kills = `[data-switch="kill-relay"]`
	switched := func(on bool) {
		tb.click(kills)
		tb.wait("the relay to be switched", fmt.Sprintf(`document.querySelector('%s').getAttribute('aria-checked') === '%t'`, kills, on))
	}
	switched(true)
	d.post(t, domain.Named("Never Heard Of"))
	conn := d.connect(t)
	labtest.Eventually(t, "the slot to be free", func() bool {
		_, err := conn.Exec(t.Context(), "SELECT pg_replication_slot_advance('outbox_relay', pg_current_wal_lsn())")
		return err == nil
	})
	switched(false)
	d.post(t, domain.Named("Heard Of"))
	tb.row("Heard Of")
	labtest.Eventually(t, "the page to tell of the loss", func() bool { return tb.promise().lost == 1 })
	cars, counted := d.truth(t)
	require.Equal(t, cars-1, counted)
	require.Equal(t, promise{cars, counted, 1, tb.promise().suppressed}, tb.promise())
	require.NoError(t, chromedp.Do(tb.ctx))
}
