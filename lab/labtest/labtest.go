// Package labtest waits in tests.
package labtest

import (
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
