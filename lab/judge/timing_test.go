package judge_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/judge"
)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// notes makes a round of one aggregate with an event per span. The event is created at its beginning and on the bus at its end.
func notes(spans ...[2]float64) *round {
	r := &round{now: start}
	for i, span := range spans {
		row := r.row("Car", "n", int64(i+1), "Noted", `{}`)
		row.CreatedAt = at(span[0])
		entry := r.entry(*row)
		entry.Accepted = at(span[1])
		r.Arrivals = append(r.Arrivals, entry)
	}
	return r
}

func times(n int, span [2]float64) (all [][2]float64) {
	for range n {
		all = append(all, span)
	}
	return all
}

func TestHotCountsAggregatesInFlightDuringAFault(t *testing.T) {
	t.Parallel()
	faults := []judge.Window{{Kind: "a", Start: at(10), End: at(20)}, {Kind: "b", Start: at(12), End: at(14)}}
	for name, test := range map[string]struct {
		spans [][2]float64
		hot   int
	}{
		"TenDuringTheFault":         {times(10, [2]float64{15, 16}), 1},
		"TenBeforeAndIntoTheFault":  {times(10, [2]float64{1, 11}), 1},
		"TenOverTheWholeFault":      {times(10, [2]float64{1, 30}), 1},
		"TenAtTheLastMoment":        {times(10, [2]float64{20, 30}), 1},
		"NineDuringTheFault":        {times(9, [2]float64{15, 16}), 0},
		"TenBeforeTheFault":         {times(10, [2]float64{1, 9}), 0},
		"TenAfterTheFault":          {times(10, [2]float64{21, 22}), 0},
		"TenButNeverAtOnce":         {append(times(5, [2]float64{11, 12}), times(5, [2]float64{13, 14})...), 0},
		"TenAtOnceOnlyAfterwards":   {append(times(5, [2]float64{11, 30}), times(5, [2]float64{21, 30})...), 0},
		"TenOfWhichTheFirstOverlap": {append(times(5, [2]float64{5, 15}), times(5, [2]float64{13, 25})...), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := notes(test.spans...)
			r.Windows = faults
			require.Equal(t, test.hot, judge.Judge(r.Round).Hot)
			r.Windows = nil
			require.Zero(t, judge.Judge(r.Round).Hot, "no fault")
		})
	}

	t.Run("OfTwoAggregatesNeitherIsHot", func(t *testing.T) {
		t.Parallel()
		r := notes(times(10, [2]float64{15, 16})...)
		r.Rows[9].AggregateID = "m"
		r.Windows = faults
		require.Zero(t, judge.Judge(r.Round).Hot)
	})
}

func TestRecoveryIsTheArrivalOfTheFirstEventCreatedAfterwards(t *testing.T) {
	t.Parallel()
	r := notes([2]float64{1, 2}, [2]float64{5, 12}, [2]float64{10, 12.5}, [2]float64{11, 13}, [2]float64{11.5, 12.75})
	r.Windows = []judge.Window{
		{Kind: "late", Start: at(4), End: at(10)}, {Kind: "early", Start: at(0), End: at(0.5)}, {Kind: "last", Start: at(0), End: at(11.5)},
	}
	v := judge.Judge(r.Round)
	require.Equal(t, []judge.Recovery{
		{Kind: "late", Took: 3 * time.Second}, {Kind: "early", Took: 1500 * time.Millisecond}, {Kind: "last", Absent: true},
	}, v.Recoveries)
	require.Equal(t, 10*time.Second, v.LongestGap)

	r.Arrivals = r.Arrivals[:3] // the later two are lost
	require.True(t, judge.Judge(r.Round).Recoveries[0].Absent)
}

func TestOfNothingNothingIsWrong(t *testing.T) {
	t.Parallel()
	require.Equal(t, judge.Verdict{Recoveries: []judge.Recovery{}}, judge.Judge(judge.Round{}))
}

// BenchmarkJudge judges a round of 20,000 rows with a hundred faults.
func BenchmarkJudge(b *testing.B) {
	r := &round{now: start}
	random := rand.New(rand.NewPCG(1, 2))
	versions := map[int]int64{}
	for range 20_000 {
		n := random.IntN(50)
		versions[n]++
		r.Arrivals = append(r.Arrivals, r.entry(*r.row("Note", fmt.Sprint("n", n), versions[n], "Noted", `{"a": [1, 2, 3], "text": "note"}`)))
	}
	for i := range 100 {
		r.Windows = append(r.Windows, judge.Window{Kind: "k", Start: start.Add(time.Duration(i) * 100 * time.Millisecond), End: start.Add(time.Hour)})
		r.Poison = append(r.Poison, judge.Poison{Token: fmt.Sprintf("poison-%d-", i)})
	}
	for b.Loop() {
		v := judge.Judge(r.Round)
		require.Empty(b, v.Violations)
		require.Equal(b, 20_000, v.Events)
	}
}
