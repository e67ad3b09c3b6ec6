//go:build browser

package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
)

// A reader who knows only the page, and does what it suggests, sees the path broken and mended.
func leadsANewcomer(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	for _, suggestion := range []string{"a car", "experiment 1"} {
		tb.wait("the page to suggest "+suggestion, fmt.Sprintf(`document.querySelector('#next-do').checkVisibility() && document.querySelector('#next-do').textContent.includes(%q)`, suggestion))
		tb.click("#next-do")
	}
	tb.wait("the first experiment to pass", `document.querySelector('[data-tour-result="1"].passed')`)
	t.Logf("%s after the start", time.Since(d.began).Round(time.Second))
	tb.balanced(d)
}

// fill types the members of the body into the form.
func (tb *tab) fill(body string) {
	tb.t.Helper()
	members := map[string]any{}
	require.NoError(tb.t, json.Unmarshal([]byte(body), &members))
	for name, value := range members {
		tb.typeInto("#car-form [name="+name+"]", fmt.Sprint(value))
	}
}

func createsACar(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	before := tb.promise()
	tb.fill(domain.Named("Toyota Unicum"))
	tb.click("#car-form button")
	tb.wait("the API's answer", `document.querySelector('#car-answer').textContent.includes('created')`)
	id := tb.row("Toyota Unicum")
	tb.click(`tr[data-event="` + id + `"] td`)
	tb.wait("its records", shows(id))
	for hop, parts := range map[int][]string{
		1: {"POST", "/cars", "201", "Toyota"},
		2: {id, "CarCreated", "Unicum"},
		3: {"0/"},
		4: {"shardId-", "outbox", "Unicum"},
		6: {"CarCreated", "outbox.car", "Unicum"},
		7: {"counted"},
	} {
		for _, part := range parts {
			tb.wait(fmt.Sprintf("%q in record %d", part, hop), fmt.Sprintf(`document.querySelector('#event [data-hop="%d"]').textContent.includes(%q)`, hop, part))
		}
	}
	says := tb.showsWhere(d, id)
	require.Equal(t, "on the bus", says)
	tb.marksWhatChanged()
	tb.balanced(d)
	require.Greater(t, tb.promise().cars, before.cars)
}

// marksWhatChanged checks the marks of the fields. A field that a hop has added has +, a renamed
// one has its earlier name, and an unchanged one has no mark.
func (tb *tab) marksWhatChanged() {
	tb.t.Helper()
	for _, one := range []struct {
		hop         int
		field, mark string
	}{
		{2, "eventId", "+"}, {2, "aggregateId", "id"}, {2, "make", ""}, {3, "transactionId", "+"},
		{4, "aggregate_id", ""}, {4, "event_data", ""}, {4, "partition-key-value", "aggregate_id"}, {4, "shard", "+"}, {4, "table-name", "+"},
		{6, "DetailType", "event_type"}, {6, "timestamp", "created_at"}, {6, "aggregateVersion", "aggregate_version"}, {6, "traceparent", ""}, {6, "TraceHeader", "+"},
	} {
		tb.wait(fmt.Sprintf("the mark %q of %s at hop %d", one.mark, one.field, one.hop), fmt.Sprintf(`(record => {
			const named = [...record.querySelectorAll('dl > div, pre > span')].filter(e => (e.querySelector('dt') ?? e).textContent.trim().replace(/^"([^"]*)".*/s, '$1') === %q);
			const mark = e => e.classList.contains('added') ? '+' : e.querySelector('.earlier')?.textContent.slice(3) ?? '';
			return named.length > 0 && named.every(e => mark(e) === %q);
		})(document.querySelector('#event [data-hop="%d"]'))`, one.field, one.mark, one.hop))
	}
}

// The record of an event that waits is open. When the event arrives, the page asks for the record
// again.
func tellsWhereAnEventWaits(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	const kills = `[data-switch="kill-relay"]`
	tb.click(kills)
	tb.wait("the relay to be killed", `document.querySelector('`+kills+`').getAttribute('aria-checked') === 'true'`)
	d.post(t, domain.Named("Held In The WAL"))
	id := tb.row("Held In The WAL")
	tb.click(`tr[data-event="` + id + `"] td`)
	tb.wait("its records", shows(id))
	require.Contains(t, tb.showsWhere(d, id), "committed, not seen on the stream")
	tb.wait("the slot that keeps it", `document.querySelector('#event [data-hop="3"]').textContent.includes('confirmedLsn')`)
	tb.click(kills)
	tb.wait("the end of its story", `document.querySelector('#event-note').textContent.includes('⑥ on the bus')`)
	tb.balanced(d)
}

// showsWhere checks that the open event shows every value of the hops that `outboxctl where --json`
// prints. It returns the command's verdict.
func (tb *tab) showsWhere(d *dev, id string) (says string) {
	tb.t.Helper()
	response, err := http.Get(d.view + "/events/" + id + "/where")
	require.NoError(tb.t, err)
	defer response.Body.Close()
	var story struct {
		Row, Commit         map[string]any
		Stream, Parked, Bus []map[string]any
		LastHop, Says       string
	}
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber() // keeps numbers as they are written
	require.NoError(tb.t, decoder.Decode(&story))
	for hop, parts := range map[int][]map[string]any{2: {story.Row}, 3: {story.Commit}, 4: story.Stream, 5: story.Parked, 6: story.Bus} {
		for _, part := range parts {
			for name, value := range part {
				tb.wait(fmt.Sprintf("%s %v in record %d", name, value, hop), fmt.Sprintf(
					`document.querySelector('#event [data-hop="%d"]').textContent.includes(%q)`, hop, name+fmt.Sprint(value)))
			}
		}
	}
	tb.wait("what the command says", fmt.Sprintf(`document.querySelector('#event-note').textContent.includes(%q)`, story.LastHop+" "+story.Says))
	return story.Says
}

func showsTheAPIsOwnMessages(t *testing.T, d *dev) {
	tb := show(t, d, desk)
	tb.allowed = []string{"status of 400"} // the browser itself notes the answer
	tb.fill(domain.Refused)
	tb.click("#car-form button")

	response, err := http.Post(d.api+domain.Path, "application/json", strings.NewReader(domain.Refused))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	var refusal struct{ Fields map[string]string }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&refusal))
	require.Len(t, refusal.Fields, 3)
	for field, why := range refusal.Fields {
		tb.wait("the API's words about "+field, fmt.Sprintf(`document.querySelector('#car-form').textContent.includes(%q)`, why))
	}
}

// attack runs where a page takes it for HTML, and is a text elsewhere. It is shorter than the
// shortest field's limit.
const attack = `<img src=x onerror="window.hacked=1">`

// The page's policy would stop this script, also as an inline one. The policy is off here, so that
// only the page's own care is tested. refusesForeignPages tests the policy.
func interpretsNoText(t *testing.T, d *dev) {
	members := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(domain.Sample(0)), &members))
	for _, field := range domain.Fields {
		if !field.Numeric {
			members[field.Name] = attack
		}
	}
	body, err := json.Marshal(members)
	require.NoError(t, err)
	l := desk
	l.noCSP = true
	tb := show(t, d, l)
	unharmed := func() {
		t.Helper()
		require.False(t, tb.is(`window.hacked`), "the text of an event ran as a script")
		require.False(t, tb.is(`document.querySelector('img[src="x"], [onerror], svg script')`), "the text of an event became an element")
	}
	// An attacker can choose what the API believes, which are the names and the caller's name.
	request, err := http.NewRequest(http.MethodPost, d.api+domain.Path, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", attack)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusCreated, response.StatusCode)
	id := tb.row(attack)
	unharmed()
	tb.click(`tr[data-event="` + id + `"] td`)
	tb.wait("its records", shows(id))
	for _, hop := range []int{1, 2, 4, 6} {
		tb.wait(fmt.Sprintf("the name as text in record %d", hop), fmt.Sprintf(`document.querySelector('#event [data-hop="%d"]').textContent.includes('<img src=x onerror=')`, hop))
	}
	unharmed()

	// The form, and the API's answer to it.
	tb.fill(string(body))
	tb.click("#car-form button")
	tb.wait("the API's answer", `document.querySelector('#car-answer').textContent.includes('created')`)
	unharmed()

	// A row of another writer, whose aggregate id can be any text.
	conn := d.connect(t)
	other, err := uuid.NewV7()
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		VALUES ($1, 'Boat', $2::text, 1, 'BoatBuilt', jsonb_build_object($2::text, $2::text))`, other, attack)
	require.NoError(t, err)
	tb.wait("the row of another writer", fmt.Sprintf(`document.querySelector('tr[data-event="%s"]')`, other))
	tb.click(`tr[data-event="` + other.String() + `"] td`)
	tb.wait("its records", shows(other.String()))
	unharmed()

	// Somebody else may have written the address.
	address := eval[string](tb, `location.href`)
	require.Contains(t, address, other.String(), "the open event is in the URL")
	tb.allowed = []string{"status of 404", "status of 400"} // there is no such event
	tb.do(chromedp.Navigate(strings.ReplaceAll(address, other.String(), url.QueryEscape(attack))))
	tb.connected()
	tb.wait("no event of that name", `document.querySelector('#event').textContent.includes('<img')`)
	unharmed()
	tb.balanced(d)
}
