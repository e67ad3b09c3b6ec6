package view

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/labtest"
)

func TestHistoryOfFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	ofRelay := func() (spans []faultSpan) {
		for _, one := range r.timeline().(timeline).Faults {
			if one.Switch == "kill-relay" {
				spans = append(spans, one)
			}
		}
		return spans
	}
	require.Empty(t, ofRelay())
	began := time.Now().UnixMilli()
	_, err := r.switches.set(t.Context(), "kill-relay", true)
	require.NoError(t, err)
	require.Len(t, ofRelay(), 1)
	require.GreaterOrEqual(t, ofRelay()[0].From, began)
	require.Zero(t, ofRelay()[0].To, "it is still in force")

	require.NoError(t, r.path.Relay.Start(), "somebody mends it without the page")
	labtest.Eventually(t, "the end to be noticed", func() bool { return ofRelay()[0].To >= ofRelay()[0].From })
	require.NoError(t, r.switches.poison(t.Context(), "key"))
	spans := r.switches.past(time.Now())
	require.Equal(t, "poison", spans[1].Switch)
	require.Equal(t, spans[1].From, spans[1].To, "it strikes once")
}

// Switching all the time for hours costs no memory. A fault in force is never forgotten.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	all := []*faultSwitch{}
	states := []switchState{}
	for i := range 3 {
		toggle := &faults.Fault{}
		toggle.Mend = func(context.Context) error { return nil }
		all = append(all, &faultSwitch{Fault: toggle})
		states = append(states, switchState{Name: fmt.Sprint(i)})
	}
	var h history
	now := time.Now()
	note := func() { h.note(now, all, func() []switchState { return states }) }
	states[0].On = true
	for range 10 * maxSpans {
		for _, on := range []bool{true, false} {
			states[1].On = on
			note()
		}
		now = now.Add(time.Millisecond)
	}
	require.Len(t, h.list(), maxSpans)
	require.Equal(t, "0", h.list()[0].Switch)
	require.Equal(t, now.UnixMilli()-1, h.list()[maxSpans-1].From, "the newest is kept")

	now = now.Add(time.Hour)
	note()
	require.Len(t, h.list(), 1, "only what is still in force is longer ago than the timeline shows")
	states[0].On = false
	note()
	now = now.Add(time.Hour)
	note()
	require.Empty(t, h.list())
}

func TestSeriesIsBounded(t *testing.T) {
	t.Parallel()
	s := newSeries()
	now := time.Now()
	for range 10 * maxPoints {
		now = now.Add(time.Second)
		for _, at := range []time.Time{now, now.Add(time.Hour), now.Add(-time.Hour), {}} { // other machines' clocks
			s.pass(now, 3, at, 1)
		}
	}
	require.LessOrEqual(t, len(s.points), 2*maxPoints+1)
	last := s.timeline(now.Add(-time.Hour), now)
	require.Len(t, last.Seconds, maxPoints)
	require.EqualValues(t, 2, last.Passed[2][maxPoints-1])
	require.Len(t, s.points, maxPoints+1)
}
