package congestion

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var limits = Limits{Unit: 1, Max: 100, Call: 10, Patience: 5 * time.Second, MaxPatience: time.Minute}

// answer fills the window and answers after the given time.
func answer(w *Window, took time.Duration) { w.Answered(w.Size(), w.Size(), took) }

func TestTheWindowDoublesWhileAnswersComeSoon(t *testing.T) {
	t.Parallel()
	w := New(limits)
	require.Equal(t, []int{1, 1}, []int{w.Size(), w.Call()})
	for range 5 {
		answer(w, time.Microsecond)
	}
	require.Greater(t, w.Size(), 10)
	for range 10 {
		answer(w, time.Microsecond)
	}
	require.Equal(t, []int{100, 10}, []int{w.Size(), w.Call()}, "the limits")
}

func TestTheWindowStaysWhereAnswersTakeLonger(t *testing.T) {
	t.Parallel()
	w := New(limits)
	for range 6 {
		answer(w, time.Millisecond)
	}
	before := w.Size()
	require.Greater(t, before, 20)
	for range 20 {
		answer(w, limits.Patience/4)
	}
	require.Equal(t, before, w.Size())
}

func TestAWindowThatIsNotFilledProvesNothing(t *testing.T) {
	t.Parallel()
	w := New(limits)
	for range 1000 {
		w.Answered(1, 1, time.Millisecond)
	}
	require.LessOrEqual(t, w.Size(), 3)
}

func TestATimeoutClosesTheWindowAndGivesTheNextCallMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := New(limits)
		for range 10 {
			answer(w, time.Millisecond)
		}
		sent := time.Now()
		time.Sleep(5 * time.Second)
		for range 10 { // calls that were sent together
			w.TimedOut(sent, w.Patience())
		}
		require.Equal(t, []int{1, 1}, []int{w.Size(), w.Call()})
		require.Equal(t, 10*time.Second, w.Patience())
		require.Equal(t, 10*time.Second, w.Expected())
		for range 5 {
			sent = time.Now()
			time.Sleep(w.Patience())
			w.TimedOut(sent, w.Patience())
		}
		require.Equal(t, limits.MaxPatience, w.Patience())

		answer(w, 8*time.Second)
		require.Equal(t, 30*time.Second, w.Patience(), "it falls by half")
		answer(w, 8*time.Second)
		require.Equal(t, 16*time.Second, w.Patience(), "and not below twice what an answer takes")
		for range 10 {
			answer(w, time.Millisecond)
		}
		require.Equal(t, limits.Patience, w.Patience())
		require.Equal(t, limits.Max, w.Size())
	})
}

// The end of an invocation cuts off a call that has only just begun.
func TestACallThatIsCutOffInTimeIsNoTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := New(limits)
		for range 10 {
			answer(w, time.Second)
		}
		size := w.Size()
		require.Greater(t, size, 1)
		sent := time.Now()
		time.Sleep(time.Second)
		w.TimedOut(sent, w.Patience())
		require.Equal(t, size, w.Size())
		time.Sleep(2 * time.Second)
		w.TimedOut(sent, w.Patience())
		require.Equal(t, 1, w.Size(), "longer than expected")
	})
}

// An answer that took nearly as long as the timeout makes the patience longer while other calls are
// unanswered.
func TestATimeoutCountsAlsoWhenThePatienceGrewMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := New(limits)
		for range 10 {
			answer(w, time.Millisecond)
		}
		sent, timeout := time.Now(), w.Patience()
		time.Sleep(4 * time.Second)
		answer(w, 4*time.Second)
		require.Greater(t, w.Patience(), timeout)
		time.Sleep(timeout - 4*time.Second)
		w.TimedOut(sent, timeout)
		require.Equal(t, 1, w.Size())
	})
}

func TestRefusalsEndAnExpectation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := New(limits)
		sent := time.Now()
		time.Sleep(50 * time.Second)
		w.TimedOut(sent, w.Patience())
		for range 20 {
			w.Refused(time.Millisecond)
		}
		require.Less(t, w.Expected(), time.Second)
		require.Equal(t, 1, w.Size(), "they say nothing of how much the service takes")
	})
}

func TestOneCallAlwaysHasRoom(t *testing.T) {
	t.Parallel()
	w := New(limits)
	require.True(t, w.Room(0, 10))
	require.False(t, w.Room(1, 1))
	for range 10 {
		answer(w, time.Millisecond)
	}
	require.True(t, w.Room(90, 10))
	require.False(t, w.Room(91, 10))
}
