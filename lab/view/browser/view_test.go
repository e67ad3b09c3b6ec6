//go:build browser

package browser

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// TestView runs all its tests on one `lab dev`. Each of them leaves it with every fault off,
// without load, and with nothing on its way.
func TestView(t *testing.T) {
	t.Parallel()
	d := start(t, newFolder(t), 0)
	for _, one := range []struct {
		name string
		test func(*testing.T, *dev)
	}{
		{"LeadsANewcomer", leadsANewcomer},
		{"CreatesACarAndShowsItsRecords", createsACar},
		{"TellsWhereAnEventWaits", tellsWhereAnEventWaits},
		{"ShowsWhatWaits", showsWhatWaits},
		{"TellsTheLastDeed", tellsTheLastDeed},
		{"KeepsTheTimelineOverReloads", keepsTheTimeline},
		{"KeepsThePathInSight", keepsThePathInSight},
		{"ServesASpeaker", servesASpeaker},
		{"SaysNothingFromAnOldReading", saysNothingFromAnOldReading},
		{"SaysThatACarIsNotCounted", saysThatACarIsNotCounted},
		{"ShowsTheAPIsOwnMessages", showsTheAPIsOwnMessages},
		{"InterpretsNoTextAsHTML", interpretsNoText},
		{"RefusesForeignPages", refusesForeignPages},
		{"RefusesWhoHasNoToken", refusesWhoHasNoToken},
		{"KeepsItsStateInTheURL", keepsItsStateInTheURL},
		{"IsDrivenByKeyboardAlone", isDrivenByKeyboard},
		{"FitsANarrowWindow", fitsANarrowWindow},
		{"ClipsNoText", clipsNoText},
		{"StandsStillWhereThatIsAskedFor", standsStill},
		{"IsAccessible", isAccessible},
		{"ContractsAreAccessible", contractsAreAccessible},
		{"Switches", switchesBreakAndMend},
		{"Tour", tourPasses},
		{"Pictures", showsADeadRelay},
		{"TellsOfARealLoss", tellsOfARealLoss}, // the last one, because the lost event stays lost
	} {
		if !t.Run(one.name, func(t *testing.T) { one.test(t, d) }) {
			d.mend(t)
		}
	}
}

const killsTheRelay = `[data-switch="kill-relay"]`

// promise has the numbers of the promise line.
type promise struct{ cars, counted, lost, suppressed int }

var promiseNumbers = regexp.MustCompile(`([\d,]+)\s+(cars?|counted|lost|duplicates?)\b`)

func (tb *tab) promise() promise {
	tb.t.Helper()
	line := tb.text("#promise")
	numbers := map[string]int{}
	for _, found := range promiseNumbers.FindAllStringSubmatch(line, -1) {
		n, err := strconv.Atoi(strings.ReplaceAll(found[1], ",", ""))
		require.NoError(tb.t, err, line)
		numbers[strings.TrimSuffix(found[2], "s")] = n
	}
	require.Len(tb.t, numbers, 4, "the promise line says %q", line)
	return promise{numbers["car"], numbers["counted"], numbers["lost"], numbers["duplicate"]}
}

// balanced waits until the page shows the numbers of the tables, and that nothing is lost.
func (tb *tab) balanced(d *dev) {
	tb.t.Helper()
	var page promise
	cars, counted := 0, 0
	for deadline := time.Now().Add(labtest.Patience); ; time.Sleep(200 * time.Millisecond) {
		cars, counted = d.truth(tb.t)
		page = tb.promise()
		if page.cars == cars && page.counted == counted && cars == counted && page.lost == 0 {
			return
		}
		require.True(tb.t, time.Now().Before(deadline), "the page says %+v; the tables say %d cars, %d counted", page, cars, counted)
	}
}

// setLoad moves the slider as a person does, and waits until the view has taken the value.
func (tb *tab) setLoad(d *dev, rate int) {
	tb.t.Helper()
	eval[bool](tb, fmt.Sprintf(`(slider => { slider.value = %d;
		slider.dispatchEvent(new Event('input', {bubbles: true})); slider.dispatchEvent(new Event('change', {bubbles: true})); return true;
	})(document.querySelector('#load'))`, rate))
	labtest.Eventually(tb.t, fmt.Sprintf("a load of %d", rate), func() bool { return d.state(tb.t).Load == rate })
}

// row finds the row of the latest events that has the words in its text.
func (tb *tab) row(words string) (id string) {
	tb.t.Helper()
	labtest.Eventually(tb.t, "a row with "+words, func() bool {
		id = eval[string](tb, fmt.Sprintf(`[...document.querySelectorAll('tr[data-event]')].find(row => row.textContent.includes(%q))?.dataset.event ?? ''`, words))
		return id != ""
	})
	return id
}

// shows returns the condition that the panel is open with the event and has its records.
func shows(id string) string {
	return fmt.Sprintf(`(panel => panel?.checkVisibility() && panel.outerHTML.includes(%q) && panel.querySelectorAll('[data-hop]').length >= 6)(document.querySelector('#event'))`, id)
}

// mend prepares the view for the next test after one that failed.
func (d *dev) mend(t *testing.T) {
	t.Helper()
	response, err := http.Get(d.view)
	require.NoError(t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	token := regexp.MustCompile(`name="view-token" content="([^"]+)"`).FindSubmatch(page)
	require.NotNil(t, token)
	send := func(method, path, body string) {
		request, err := http.NewRequest(method, d.view+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("X-View-Token", string(token[1]))
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	send(http.MethodDelete, "/tour", "") // nobody else may change anything while an experiment runs
	labtest.Eventually(t, "the end of the experiment", func() bool { return d.state(t).Tour.Running == 0 })
	send(http.MethodPost, "/load", `{"rate":0}`)
	for _, one := range d.state(t).Switches {
		if one.On {
			send(http.MethodPost, "/switches/"+one.Name, `{"on":false}`)
		}
	}
}
