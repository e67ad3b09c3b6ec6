package view

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

// stepTo waits for the end of a step, and lets the experiment go on until then. An experiment that goes on by itself may be past any
// step when the test looks, and has only two minutes.
func (r *rig) stepTo(t *testing.T, step int) (now tourState) {
	t.Helper()
	said := ""
	for {
		labtest.Eventually(t, "the end of a step", func() bool {
			now = r.tour.state()
			if now.Said != said && now.Said != "" {
				said = now.Said
				t.Logf("step %d: %s", now.Step, said)
			}
			return now.Waiting || now.Running == 0
		})
		if now.Running == 0 || now.Step == step {
			return now
		}
		require.NoError(t, r.tour.goOn())
	}
}

// result runs an experiment to its end.
func (r *rig) result(t *testing.T, n int) tourResult {
	t.Helper()
	require.NoError(t, r.tour.start(n, true))
	for step := 1; ; step++ {
		if now := r.stepTo(t, step); now.Running == 0 {
			i := slices.IndexFunc(now.Results, func(one tourResult) bool { return one.N == n })
			require.NotEqual(t, -1, i)
			if now.Results[i].Passed {
				require.Equal(t, len(experiments[n-1].Steps), step, "not all of its steps are shown")
			}
			return now.Results[i]
		}
		require.NoError(t, r.tour.goOn())
	}
}

// requireWhole requires that every fault is off and that a new car arrives.
func (r *rig) requireWhole(t *testing.T) {
	t.Helper()
	for _, s := range r.switches.list() {
		require.False(t, s.On || s.Busy, "%+v", s)
		require.Empty(t, s.Error, s.Name)
	}
	require.Empty(t, r.path.AWS.Faults().List())
	// A connection of the API that broke with PostgreSQL's end may still cost a request.
	labtest.Eventually(t, "a car to be created", func() bool { return r.create(t.Context(), 1) == nil })
	labtest.Eventually(t, "all that was committed to arrive", func() bool {
		n := r.totals()
		return n.OnTheWay == 0 && n.OnBus == n.Committed && n.Counted == n.Cars && n.Lost == 0 && n.OutOfOrder == 0
	})
	select {
	case err := <-r.path.Failed():
		require.NoError(t, err, "the path has ended")
	default:
	}
}

// Each experiment does what docs/failure-lab.md says and leaves nothing behind, because the next
// one begins where it ends. Its numbers are compared with what the experiment does.
func TestTour(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	parked := int64(0)
	for i, expected := range []string{
		`^(\d+) cars were created, (\d+) of their events waited for the dead relay\. (\d+) events are on the bus and (\d+) cars are counted: 0 lost, 0 out of order, \d+ duplicates suppressed\.$`,
		`^(\d+) requests were answered with 201 and (\d+) with an error\. (\d+) cars are there, (\d+) of their events on the bus, (\d+) counted: 0 lost, 0 out of order\.$`,
		`^(\d+) calls and then (\d+) entries failed\. 50 events of 5 cars are on the bus, each car's in the order of its versions: 0 lost, 0 out of order, 0 parked\.$`,
		`^40 cars were created and 40 are counted\. Deliveries were doubled and answers lost (\d+) times, and the subscriber suppressed (\d+) duplicates: 0 lost, 0 counted twice\.$`,
		`^The failure queue refused (\d+) times, and nobody passed the poison\. Then 1 record was parked and its 5 successors are on the bus: 0 lost, 0 out of order\.$`,
	} {
		n := i + 1
		passed := t.Run(experiments[i].Title, func(t *testing.T) {
			began := time.Now()
			result := r.result(t, n)
			t.Logf("%s: %s", time.Since(began).Round(100*time.Millisecond), result.Text)
			require.True(t, result.Passed, result.Text)
			found := regexp.MustCompile(expected).FindStringSubmatch(result.Text)
			require.NotNil(t, found, result.Text)
			var numbers []int
			for _, text := range found[1:] {
				number, err := strconv.Atoi(text)
				require.NoError(t, err)
				numbers = append(numbers, number)
			}
			switch n {
			case 1:
				require.GreaterOrEqual(t, numbers[1], 100)
				require.Equal(t, []int{numbers[0], numbers[0]}, numbers[2:])
			case 2:
				require.GreaterOrEqual(t, numbers[0], 40)
				require.GreaterOrEqual(t, numbers[1], 20)
				require.Equal(t, []int{numbers[0], numbers[0], numbers[0]}, numbers[2:])
			case 3:
				require.GreaterOrEqual(t, numbers[0], 5)
				require.GreaterOrEqual(t, numbers[1], 5)
			case 4:
				require.Greater(t, numbers[0], 40, "no answer was lost")
				require.Greater(t, numbers[1], 40, "the consumer repeated nothing")
			case 5:
				require.GreaterOrEqual(t, numbers[0], 4)
				parked++
			}
			r.requireWhole(t)
			require.Equal(t, parked, r.totals().Parked)
		})
		if !passed {
			break // the path may be broken at this step
		}
	}
	require.Len(t, r.tour.state().Results, len(experiments))
}

// An experiment that is stopped in any of its steps leaves a whole path.
func TestTourIsStoppedMidway(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	for n, step := range map[int]int{1: 3, 2: 3, 3: 2, 4: 3, 5: 3} {
		require.NoError(t, r.tour.start(n, true))
		r.stepTo(t, step-1)
		require.NoError(t, r.tour.goOn())
		labtest.Eventually(t, "the step", func() bool { return r.tour.state().Step == step })
		var notNow local.NotNowError
		require.ErrorAs(t, r.tour.start(n, false), &notNow, "one at a time")
		require.Equal(t, http.StatusConflict, r.command(t, http.MethodPost, "/switches/bus-down", `{"on":true}`).status, "it would spoil the experiment")
		r.tour.stop()
		require.Zero(t, r.tour.state().Running)
		results := r.tour.state().Results
		i := slices.IndexFunc(results, func(one tourResult) bool { return one.N == n })
		require.NotEqual(t, -1, i)
		require.False(t, results[i].Passed)
		require.Contains(t, results[i].Text, "Stopped before its end.")
		r.requireWhole(t)
	}
	r.tour.stop() // nothing runs
	require.ErrorIs(t, r.tour.start(0, false), errNoExperiment)
	require.ErrorIs(t, r.tour.start(6, false), errNoExperiment)
}

// An experiment whose promise does not hold says so, with its counts.
func TestTourSaysWhatIsNotAsExpected(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	r.tour.totals = func() totals { // an event is lost as soon as there are any
		n := r.totals()
		n.Lost = min(1, n.Committed)
		return n
	}
	result := r.result(t, 4)
	require.False(t, result.Passed)
	require.Contains(t, result.Text, "Not as expected: 40 events committed, 40 on the bus, 1 lost, 0 out of order; 40 cars, 40 counted")
	r.requireWhole(t)
}

// docs/failure-lab.md and the page use the same words.
func TestFailureLabHasTheExperimentsWords(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/failure-lab.md")
	require.NoError(t, err)
	page := words(string(content))
	for _, e := range experiments {
		expected := "## Experiment " + strconv.Itoa(e.N) + ": " + e.Title + " " + e.Intro
		for i, step := range e.Steps {
			expected += " " + strconv.Itoa(i+1) + ". " + step
		}
		expected += " **Expected**: " + e.Expect
		require.Contains(t, page, words(expected))
	}
	for _, f := range faults.Of(&local.Path{}) {
		require.Contains(t, page, words("**"+f.Label+"** "+f.Text+" On AWS: "+f.AWS))
	}
	require.Equal(t, len(experiments), strings.Count(string(content), "## Experiment "))
}

// words returns a text's words, without line breaks and without the marks of code.
func words(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "`", "")), " ")
}

// A speaker decides when each step begins.
func TestStepsByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	require.Equal(t, http.StatusConflict, r.command(t, http.MethodPost, "/tour/next", "").status, "no experiment runs")
	require.Equal(t, http.StatusOK, r.command(t, http.MethodPost, "/tour/1?by-hand", "").status)
	for step := range len(experiments[0].Steps) - 1 {
		labtest.Eventually(t, "a step to wait", func() bool { now := r.tour.state(); return now.Waiting && now.Step == step+1 })
		require.Equal(t, http.StatusOK, r.command(t, http.MethodPost, "/tour/next", "").status)
	}
	labtest.Eventually(t, "its end", func() bool { return r.tour.state().Running == 0 })
	require.True(t, r.tour.state().Results[0].Passed, r.tour.state().Results[0].Text)
	require.False(t, r.tour.state().ByHand)

	require.NoError(t, r.tour.start(2, true))
	labtest.Eventually(t, "a step to wait", func() bool { return r.tour.state().Waiting })
	r.tour.stop()
	require.Zero(t, r.tour.state().Running, "it can be stopped while it waits")
}

// A step is shown for as long as it takes to read it.
func TestStepsAreShownForLongEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &run{tour: newTour(nil, nil, nil), ctx: t.Context(), shown: time.Now()}
		began := time.Now()
		r.step(2)
		r.step(3)
		r.linger()
		require.Equal(t, 9*time.Second, time.Since(began))
	})
}
