package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/chaos/report"
	"rds-outbox-demo/lab/judge"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func empty() *report.Report {
	r := report.New(7)
	r.Started = start
	r.Machine = report.Machine{Cores: 2, OS: "linux", Arch: "arm64", Go: "go1.26.0", PostgreSQL: "17.10"}
	return r
}

// round makes a round with an arrival and a commit at each of the seconds, and its verdict.
func round(seconds ...float64) (r judge.Round, v judge.Verdict) {
	for _, s := range seconds {
		r.Arrivals = append(r.Arrivals, awslocal.BusEvent{Accepted: at(s)})
		r.Rows = append(r.Rows, judge.Row{CreatedAt: at(s - 0.5)})
	}
	v.Events = len(seconds)
	return r, v
}

func strike(r *judge.Round, v *judge.Verdict, kind string, from, to, recovery float64) {
	r.Windows = append(r.Windows, judge.Window{Kind: kind, Start: at(from), End: at(to)})
	v.Recoveries = append(v.Recoveries, judge.Recovery{Kind: kind, Took: time.Duration(recovery * float64(time.Second)), Absent: recovery < 0})
}

// two makes a report of two rounds.
func two() *report.Report {
	all := empty()
	r, v := round(0.5, 1.5, 1.75, 4.5)
	v.Duplicates, v.Parked, v.Hot, v.LongestGap = 3, 2, 4, 2100*time.Millisecond
	strike(&r, &v, "kill-relay", 1, 2, 0.2)
	strike(&r, &v, "kill-relay", 2, 3, 0.4)
	strike(&r, &v, "kill-relay", 3, 3, 0.1)
	strike(&r, &v, "slot-lost", 3, 3.5, -1)
	all.Add(r, v)
	r, v = round(10)
	v.Lost, v.Reordered, v.Wrong, v.LongestGap = 1, 1, 1, time.Second
	v.Violations = []judge.Violation{{Rule: "lost", Text: "one"}, {Rule: "reordered", Text: "two"}, {Rule: "contract", Text: "<three>"}}
	strike(&r, &v, `odd-<&">`, 9, 9.5, 1)
	all.Add(r, v)
	return all
}

func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, write(&b))
	return b.String()
}

func TestLineHasTheFacts(t *testing.T) {
	t.Parallel()
	require.Equal(t, "seed=7 rounds=2 faults=5 kinds=3 events=5 lost=1 reordered=1 wrong=1 duplicates/million=600000 gap=2.1s hot=4", two().Line())
	require.Equal(t, "seed=7 rounds=0 faults=0 kinds=0 events=0 lost=0 reordered=0 wrong=0 duplicates/million=0 gap=0.0s hot=0", empty().Line())
}

func TestText(t *testing.T) {
	t.Parallel()
	require.Equal(t, `seed 7: 2 rounds in 10s, begun 2026-03-01T12:00:00Z
2 cores, linux/arm64, go1.26.0, PostgreSQL 17.10

  events                                  5
  lost                                    1
  reordered                               1
  wrong                                   1
  poison parked                           2
  duplicates                              3
  duplicates per million             600000
  longest gap                         2.1 s
  cars with 10 in flight                  4

  faults                             struck     recovery p50              max
  kill-relay                              3           200 ms           400 ms
  odd-<&">                                1          1000 ms          1000 ms
  slot-lost                               1                -                -
  all                                     5

3 violations
  round 2: lost: one
  round 2: reordered: two
  round 2: contract: <three>
`, written(t, two().WriteText))
}

func TestJSON(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"seed":7,"rounds":2,"started":"2026-03-01T12:00:00Z","seconds":10,
		"machine":{"cores":2,"os":"linux","arch":"arm64","go":"go1.26.0","postgresql":"17.10"},
		"events":5,"lost":1,"reordered":1,"wrong":1,"parked":2,"duplicates":3,"duplicatesPerMillion":600000,"longestGapMs":2100,"hotCars":4,
		"faultsStruck":5,"faults":[
			{"kind":"kill-relay","struck":3,"recovered":3,"recoveryP50Ms":200,"recoveryMaxMs":400},
			{"kind":"odd-<&\">","struck":1,"recovered":1,"recoveryP50Ms":1000,"recoveryMaxMs":1000},
			{"kind":"slot-lost","struck":1,"recovered":0}],
		"violationCount":3,"violations":[
			{"round":2,"rule":"lost","text":"one"},{"round":2,"rule":"reordered","text":"two"},{"round":2,"rule":"contract","text":"<three>"}],
		"timeline":{"bucketSeconds":1,
			"arrivalsPerSecond":[1,2,0,0,1,0,0,0,0,0,1],"commitsPerSecond":[1,2,0,0,1,0,0,0,0,1,0],"faults":[
			{"kind":"kill-relay","round":1,"startMs":1000,"endMs":2000,"recoveryMs":200},
			{"kind":"kill-relay","round":1,"startMs":2000,"endMs":3000,"recoveryMs":400},
			{"kind":"kill-relay","round":1,"startMs":3000,"endMs":3000,"recoveryMs":100},
			{"kind":"slot-lost","round":1,"startMs":3000,"endMs":3500},
			{"kind":"odd-<&\">","round":2,"startMs":9000,"endMs":9500,"recoveryMs":1000}]}}`, written(t, two().WriteJSON))
	require.NotContains(t, written(t, empty().WriteJSON), "null")
}

func TestMedianIsAMeasuredTime(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{1: "100 ms", 2: "100 ms", 3: "200 ms", 4: "200 ms", 5: "300 ms"} {
		all := empty()
		r, v := round(1)
		for i := range n {
			strike(&r, &v, "kill-api", 0, 0, float64(n-i)/10) // largest first
		}
		all.Add(r, v)
		lines := strings.Split(written(t, all.WriteText), "\n")
		require.Contains(t, lines, fmt.Sprintf("  %-30s %10d %16s %16s", "kill-api", n, want, fmt.Sprintf("%d ms", 100*n)))
	}
}

func TestViolationsAreBoundedAndCounted(t *testing.T) {
	t.Parallel()
	all := empty()
	for range 3 {
		r, v := round(1)
		for i := range 150 {
			v.Violations = append(v.Violations, judge.Violation{Rule: "lost", Text: fmt.Sprint("event ", i)})
		}
		all.Add(r, v)
	}
	require.Len(t, all.Violations, 200)
	require.Equal(t, 450, all.ViolationCount)
	text := written(t, all.WriteText)
	require.Equal(t, 20, strings.Count(text, "round 1: lost"))
	require.Contains(t, text, "\n450 violations\n")
	require.Contains(t, text, "\n  and 430 more\n")
	require.Contains(t, written(t, all.WriteJSON), `"violationCount":450`)
}

func TestAClockThatIsFarOffCostsNoMemory(t *testing.T) {
	t.Parallel()
	all := empty()
	all.Add(round(1, -5, 1e9))
	require.Contains(t, written(t, all.WriteJSON), `"arrivalsPerSecond":[0,1]`)
	require.Less(t, len(written(t, all.WriteSVG)), 100_000)
}

// element is what the tests look at in the picture.
type element struct {
	name, class, text string
	attributes        map[string]string
}

// elements reads the SVG, which must be well-formed.
func elements(t *testing.T, svg string) (all []element) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	var open []int
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attributes: map[string]string{}}
			for _, a := range token.Attr {
				e.attributes[a.Name.Local] = a.Value
			}
			e.class = e.attributes["class"]
			open = append(open, len(all))
			all = append(all, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				all[open[len(open)-1]].text += string(token)
			}
		}
	}
}

func TestSVGShowsEachFaultInItsLane(t *testing.T) {
	t.Parallel()
	svg := written(t, two().WriteSVG)
	var lanes []string
	bars, tips := map[string][]string{}, []string{}
	for _, e := range elements(t, svg) {
		switch {
		case e.name == "text" && e.class == "text":
			lanes = append(lanes, e.text)
		case e.name == "rect" && e.attributes["height"] == "14":
			bars[e.class] = append(bars[e.class], e.attributes["x"]+" "+e.attributes["y"]+" "+e.attributes["width"])
		case e.name == "title":
			tips = append(tips, e.text)
		}
	}
	require.Equal(t, []string{
		"process kills", "failpoints", "Kinesis", "EventBridge", "failure queue", "database", "slot", "writers", "other",
	}, lanes)
	// 10 seconds are 1060 pixels.
	require.Equal(t, map[string][]string{
		"fault":    {"226.0 307.0 106.0", "332.0 307.0 106.0", "438.0 307.0 1.5", "438.0 475.0 53.0", "1074.0 531.0 53.0"},
		"recovery": {"332.0 307.0 21.2", "438.0 307.0 42.4", "438.0 307.0 10.6", "1127.0 531.0 53.0"},
	}, bars)
	require.Equal(t, []string{
		"make chaos: seed 7, 2 rounds, 5 faults of 3 kinds",
		"kill-relay at 1.0 s for 1000 ms, round 1: next event after 200 ms",
		"kill-relay at 2.0 s for 1000 ms, round 1: next event after 400 ms",
		"kill-relay at 3.0 s for 0 ms, round 1: next event after 100 ms",
		`odd-<&"> at 9.0 s for 500 ms, round 2: next event after 1000 ms`,
		"kill-relay at 1.0 s for 1000 ms, round 1: next event after 200 ms",
		"kill-relay at 2.0 s for 1000 ms, round 1: next event after 400 ms",
		"kill-relay at 3.0 s for 0 ms, round 1: next event after 100 ms",
		"slot-lost at 3.0 s for 500 ms, round 1: no event afterwards",
		`odd-<&"> at 9.0 s for 500 ms, round 2: next event after 1000 ms`,
	}, tips)
	require.Contains(t, svg, `class="commits" d="M120.0 176.0V176.0H226.0V76.0H332.0V276.0`, "1, then 2 commits in a second")
	require.NotContains(t, svg, "<script")
}

func TestSVGOfNothingIsAPicture(t *testing.T) {
	t.Parallel()
	require.NotEmpty(t, elements(t, written(t, empty().WriteSVG)))
}

// An hour with 1,500 faults stays a file that a browser likes, and equal input gives equal output.
func TestAnHourStaysSmall(t *testing.T) {
	t.Parallel()
	one, two := hour(), hour()
	for name, size := range map[string]int{"SVG": 600_000, "JSON": 250_000, "text": 5_000} {
		write := map[string][]func(io.Writer) error{
			"SVG": {one.WriteSVG, two.WriteSVG}, "JSON": {one.WriteJSON, two.WriteJSON}, "text": {one.WriteText, two.WriteText},
		}[name]
		text := written(t, write[0])
		require.Less(t, len(text), size, name)
		require.Equal(t, text, written(t, write[1]), name)
	}
	require.Len(t, elements(t, written(t, one.WriteSVG)), len(elements(t, written(t, two.WriteSVG))))
	var document struct {
		Timeline struct {
			BucketSeconds int
			Arrivals      []float64 `json:"arrivalsPerSecond"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(written(t, one.WriteJSON)), &document))
	require.Equal(t, 10, document.Timeline.BucketSeconds)
	require.Len(t, document.Timeline.Arrivals, 360)
}

func hour() *report.Report {
	all := empty()
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []string{
		"kill-relay", "kill-api", "failpoint-relay-before-put", "kinesis-throttled", "events-down", "queue-error", "database-kill", "slot-lost",
		"second-relay", "writer-rollback", "poison-event",
	}
	for minute := range 60 {
		var seconds []float64
		for range 2000 {
			seconds = append(seconds, 60*float64(minute)+random.Float64()*59.9)
		}
		r, v := round(seconds...)
		for range 25 {
			from := 60*float64(minute) + random.Float64()*50
			strike(&r, &v, kinds[random.IntN(len(kinds))], from, from+random.Float64()*3, random.Float64()*2)
		}
		all.Add(r, v)
	}
	return all
}

// With REPORT_SAMPLES a folder, its pictures are there to be looked at.
func TestSamples(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("REPORT_SAMPLES")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, r := range map[string]*report.Report{"short": two(), "hour": hour(), "empty": empty()} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".svg"), []byte(written(t, r.WriteSVG)), 0o644))
	}
}
