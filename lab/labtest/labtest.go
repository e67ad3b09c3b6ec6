// Package labtest has what tests of several packages share, which is waiting, the built programs, a
// log, and a
// way to a server that breaks.
package labtest

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is how long a test waits for something that must happen. It says nothing about speed. A
// test that passes never waits for it, and a machine that is busy with other things must not turn a
// test red.
const Patience = 3 * time.Minute

// Eventually returns when the condition holds. It fails the test after Patience, with what did not happen.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "waited too long for: %s", what)
	}
}

// Missing ends a test that needs something that is not installed. In CI the test fails, because a
// skipped test would look like one that passed.
func Missing(t testing.TB, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Log can be read while programs write it. A test that fails shows it.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// NewLog returns the log of a test.
func NewLog(t testing.TB) *Log {
	l := &Log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l)
		}
	})
	return l
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns everything that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
