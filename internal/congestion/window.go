// Package congestion finds out how much a service takes at once, from the time that its answers
// take.
//
// A fixed number of calls and a fixed timeout assume a speed. If the service is slower, every call
// times out, the service works on calls that nobody waits for, everything is sent again, and
// nothing is ever done. That is congestion collapse. So there is a window, as in TCP. It doubles
// with each round trip until the answers take longer. A call that times out closes it to one unit
// and doubles the patience. The SDK's adaptive retry mode does not help, because it slows down only
// when the service answers with a throttling error.
package congestion

import (
	"sync"
	"time"

	"rds-outbox-demo/internal/sabotage"
)

// Limits of a Window. Every field is required. Amounts are in what the caller counts, such as
// entries or bytes.
type Limits struct {
	Unit int // the least that may be unanswered. A window starts with it.
	Max  int // the most that may be unanswered
	Call int // the most in one call
	// Patience is the shortest timeout of a call, MaxPatience the longest.
	Patience, MaxPatience time.Duration
}

// Window is what one process knows of a service. It is safe for concurrent use. Other processes
// that use the same service have windows of their own. Each process sees the load of all of them in
// the time that the answers take.
type Window struct {
	limits Limits

	mu       sync.Mutex
	size     float64
	patience time.Duration
	shortest time.Duration // the answer that took the least time since the window was closed; 0 before the first
	slowest  time.Duration // of the last calls
	closed   time.Time     // when the last timeout closed it
}

// New returns a window that is open by one unit.
func New(limits Limits) *Window {
	return &Window{limits: limits, size: float64(limits.Unit), patience: limits.Patience}
}

// Size returns how much may be unanswered.
func (w *Window) Size() int {
	if sabotage.On(sabotage.FixedConcurrency) {
		return w.limits.Max
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.size)
}

// Call returns how much may be in one call. It is at most half of the window, so that the service has another call to work on
// while an answer is on its way.
func (w *Window) Call() int {
	return max(w.limits.Unit, min(w.limits.Call, w.Size()/2))
}

// Room reports whether a call of n may be sent beside what is unanswered. When nothing is
// unanswered, a call always may.
func (w *Window) Room(unanswered, n int) bool {
	return unanswered == 0 || unanswered+n <= w.Size()
}

// Patience returns the timeout of the next call.
func (w *Window) Patience() time.Duration {
	if sabotage.On(sabotage.FixedConcurrency) {
		return w.limits.Patience
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.patience
}

// Expected returns how long the next call may take. That is twice as long as the slowest of the
// last ones.
func (w *Window) Expected() time.Duration {
	if sabotage.On(sabotage.FixedConcurrency) {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return 2 * w.slowest
}

// Answered records an answer to a call of n. unanswered is how much was unanswered when the answer
// came, this call included.
func (w *Window) Answered(n, unanswered int, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took(took)
	w.patience = min(w.limits.MaxPatience, max(w.limits.Patience, 2*took, w.patience/2))
	if w.shortest == 0 || took < w.shortest {
		w.shortest = took
	}
	// A service that is slow but takes much at once answers no sooner with a small window. So an
	// answer that took a little longer than the shortest one is no sign of a queue.
	growsBelow := max(w.limits.Patience/4, w.shortest*3/2)
	headroom := 1 - float64(took)/float64(growsBelow)
	// A window that was not filled proves nothing. If light traffic opened it, the first burst
	// would flood a slow service.
	if filled := 2*unanswered >= int(w.size); filled && headroom > 0 {
		w.size = min(float64(w.limits.Max), w.size+float64(n)*headroom)
	}
}

// Refused records a call that failed without a timeout. Such a call says nothing about how much the
// service takes.
func (w *Window) Refused(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took(took)
}

// took keeps the time of the slowest of the last calls. The time falls with each answer, also with
// a refusal. Otherwise a caller that has less time left than it expects to need would give up at
// once, for ever.
func (w *Window) took(d time.Duration) { w.slowest = max(d, w.slowest*3/4) }

// TimedOut records a call that was given up without an answer, by its timeout or because the
// caller's own time was over. It closes the window only if the call took longer than expected.
// The timeout is what Patience returned for this call, because an answer to another call may have
// changed the patience meanwhile. Calls that were sent together count as one timeout. Otherwise
// each of them would double the patience.
func (w *Window) TimedOut(sent time.Time, timeout time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	waited := time.Since(sent)
	inTime := waited < min(timeout, 2*w.slowest)
	w.slowest = max(w.slowest, waited)
	if inTime || sent.Before(w.closed) {
		return
	}
	w.closed, w.size, w.shortest = time.Now(), float64(w.limits.Unit), 0
	w.patience = min(w.limits.MaxPatience, max(w.patience, 2*waited))
}
