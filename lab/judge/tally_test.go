package judge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
)

// history is a round that goes on and feeds a Tally. Transactions open and commit. Events arrive in
// any order and any number of times, or are parked.
type history struct {
	round
	tally *judge.Tally
	since time.Time // zero before the tally has begun

	open      []judge.Row
	committed []judge.Row
	versions  map[string]int64
}

func (h *history) begin(rt *rapid.T) {
	h.now = h.now.Add(time.Duration(rapid.IntRange(0, 900).Draw(rt, "pause")) * time.Millisecond)
	aggregate := fmt.Sprintf("note-%d", rapid.IntRange(0, 3).Draw(rt, "aggregate"))
	h.versions[aggregate]++
	h.open = append(h.open, *h.row("Note", aggregate, h.versions[aggregate], "Noted", `{}`))
}

func (h *history) commit(rt *rapid.T) {
	if len(h.open) > 0 {
		i := rapid.IntRange(0, len(h.open)-1).Draw(rt, "transaction")
		h.committed = append(h.committed, h.open[i])
		h.open = slices.Delete(h.open, i, i+1)
	}
}

// any draws a committed event. The second return is false when there is none, or when the event is older than the tally.
func (h *history) any(rt *rapid.T) (row judge.Row, counts bool) {
	if len(h.committed) == 0 {
		return row, false
	}
	row = h.committed[rapid.IntRange(0, len(h.committed)-1).Draw(rt, "event")]
	return row, !h.since.IsZero() && !row.CreatedAt.Before(h.since)
}

func (h *history) arrive(rt *rapid.T) {
	row, counts := h.any(rt)
	if row.ID == uuid.Nil {
		return
	}
	entry := h.entry(row)
	id, _ := h.tally.Arrived(entry)
	require.Equal(rt, row.ID, id)
	if counts {
		h.Arrivals = append(h.Arrivals, entry)
	}
}

func (h *history) park(rt *rapid.T) {
	row, counts := h.any(rt)
	h.tally.Parked(row.ID, row.CreatedAt)
	if counts {
		h.Parked = append(h.Parked, parkedEvent(row))
	}
}

// poll counts the rows as the live view does.
func (h *history) poll() {
	complete, rows := h.now, map[int64]int64{}
	for _, row := range h.open {
		if row.CreatedAt.Before(complete) {
			complete = row.CreatedAt
		}
	}
	for _, row := range h.committed {
		if !row.CreatedAt.Before(h.tally.Uncounted()) {
			rows[row.CreatedAt.Unix()]++
		}
	}
	h.tally.Committed(rows, complete.Unix())
}

// requireSame compares what the tally counts now with what Judge says of the rows and arrivals so far.
func (h *history) requireSame(rt *rapid.T) judge.Counts {
	r := h.Round
	r.NotCounted = true
	r.Rows = slices.DeleteFunc(slices.Clone(h.committed), func(row judge.Row) bool { return row.CreatedAt.Before(h.since) })
	v, c := judge.Judge(r), h.tally.Counts()
	require.EqualValues(rt, v.Events, c.Committed, "committed")
	// Nothing here is poison, so Judge calls lost what is parked.
	require.EqualValues(rt, v.Lost, c.Lost+c.OnTheWay+c.Parked, "lost")
	require.EqualValues(rt, v.Events-v.Lost, c.OnBus, "on the bus")
	require.EqualValues(rt, v.Duplicates, c.Duplicates, "duplicates")
	require.EqualValues(rt, v.Reordered, c.OutOfOrder, "out of order")
	parked := 0
	for _, violation := range v.Violations {
		if violation.Rule == judge.RuleLost && strings.HasSuffix(violation.Text, "it was parked") {
			parked++
		}
	}
	require.EqualValues(rt, parked, c.Parked, "parked")
	return c
}

// However commits, arrivals and polls are mixed, a Tally that forgets says after each poll what Judge says.
func TestTallySaysWhatJudgeSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{round: round{now: start}, tally: judge.NewTally(), versions: map[string]int64{}}
		steps := func(name string, most int, poll func()) {
			for range rapid.IntRange(0, most).Draw(rt, name) {
				switch rapid.IntRange(0, 9).Draw(rt, "step") {
				case 0, 1:
					h.begin(rt)
				case 2, 3:
					h.commit(rt)
				case 4, 5, 6:
					h.arrive(rt)
				case 7:
					h.park(rt)
				default:
					poll()
				}
			}
		}
		steps("before", 15, func() {})
		h.since = h.tick()
		h.tally.Begin(h.since)
		steps("steps", 80, func() {
			h.poll()
			require.Zero(rt, h.requireSame(rt).Lost)
		})
		for len(h.open) > 0 {
			h.commit(rt)
		}
		h.now = h.now.Add(time.Minute)
		h.poll()
		h.tally.Passed(h.now.Unix())
		require.Zero(rt, h.requireSame(rt).OnTheWay)
		_, missing := h.tally.OldestMissing()
		require.Equal(rt, h.tally.Counts().Lost > 0, missing)
		for _, row := range h.committed {
			here := slices.ContainsFunc(h.Arrivals, func(e awslocal.BusEvent) bool { return strings.Contains(string(e.Detail), row.ID.String()) }) ||
				slices.ContainsFunc(h.Parked, func(body []byte) bool { return strings.Contains(string(body), row.ID.String()) })
			require.Equal(rt, here, h.tally.HasArrived(row.ID, row.CreatedAt))
		}
	})
}

// An event that arrives before Begin, and is younger than since, has its row counted nowhere. It must not count as lost.
func TestTallyBeginsAfterWhatHasArrived(t *testing.T) {
	t.Parallel()
	h := &history{round: round{now: start}, tally: judge.NewTally(), versions: map[string]int64{}}
	early := *h.row("Note", "note-0", 1, "Noted", `{}`)
	_, first := h.tally.Arrived(h.entry(early))
	require.False(t, first)
	h.tally.Begin(start)
	require.True(t, h.tally.Uncounted().After(early.CreatedAt))
	h.committed = append(h.committed, early, *h.row("Note", "note-0", 2, "Noted", `{}`))
	h.poll()
	h.tally.Arrived(h.entry(early))
	require.Equal(t, judge.Counts{Committed: 1, OnTheWay: 1}, h.tally.Counts())
	h.tally.Arrived(h.entry(h.committed[1]))
	require.Equal(t, judge.Counts{Committed: 1, OnBus: 1}, h.tally.Counts())
}

// What is out of order is what comes late, not what overtook it.
func TestLateVersionsAreOutOfOrder(t *testing.T) {
	t.Parallel()
	h := &history{round: round{now: start}, tally: judge.NewTally()}
	h.tally.Begin(start)
	for version := range int64(5) {
		h.committed = append(h.committed, *h.row("Note", "note-0", version+1, "Noted", `{}`))
	}
	for _, version := range []int64{1, 4, 2, 3, 2, 5} { // the second 2 is a duplicate
		h.Arrivals = append(h.Arrivals, h.entry(h.committed[version-1]))
		h.tally.Arrived(h.Arrivals[len(h.Arrivals)-1])
	}
	v := judge.Judge(judge.Round{Rows: h.committed, Arrivals: h.Arrivals, NotCounted: true})
	require.Equal(t, []int{2, 1}, []int{v.Reordered, v.Duplicates})
	require.Equal(t, []int64{2, 1}, []int64{h.tally.Counts().OutOfOrder, h.tally.Counts().Duplicates})
}

func TestArrivalsAreCollected(t *testing.T) {
	t.Parallel()
	var a judge.Arrivals[string]
	one, two := uuid.New(), uuid.New()
	a.Add(one, "first of one")
	require.ErrorContains(t, a.Wait(t.Context(), 2, time.Millisecond), "1 of 2 events")
	go func() {
		a.Add(one, "second of one")
		a.Add(two, "first of two")
	}()
	require.NoError(t, a.Wait(t.Context(), 2, time.Minute))
	a.Settle(t.Context(), time.Millisecond)
	all, firsts := a.Take()
	require.Equal(t, []string{"first of one", "second of one", "first of two"}, all)
	require.Equal(t, []string{"first of one", "first of two"}, firsts)
	all, _ = a.Take()
	require.Empty(t, all, "it begins anew")
}
