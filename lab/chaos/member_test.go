package chaos

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

func newMember(t *testing.T, script string) *member {
	t.Helper()
	output, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	m := startMember("sleeper", process.Config{Program: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}, Output: output}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		m.stop()
		require.NoError(t, output.Close())
	})
	return m
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func TestKilledMemberIsStartedAgain(t *testing.T) {
	t.Parallel()
	m := newMember(t, "exec sleep 600")
	first, err := m.running(within(t))
	require.NoError(t, err)
	require.NoError(t, m.kill(within(t)))
	require.True(t, first.Killed())
	second, err := m.running(within(t))
	require.NoError(t, err)
	require.NotSame(t, first, second)
}

func TestMemberThatIsTakenDownStaysDownUntilReleased(t *testing.T) {
	t.Parallel()
	m := newMember(t, "exec sleep 600")
	require.NoError(t, m.takeDown(within(t)))
	short, cancel := context.WithTimeout(t.Context(), 3*restartDelay)
	defer cancel()
	_, err := m.running(short)
	require.Error(t, err, "it was started again")
	m.release()
	_, err = m.running(within(t))
	require.NoError(t, err)
}

// A process that ends for another reason than the strike is no strike.
func TestEndByItselfIsNoKill(t *testing.T) {
	t.Parallel()
	m := newMember(t, "sleep 0.2; exit 3")
	p, err := m.running(within(t))
	require.NoError(t, err)
	require.ErrorContains(t, m.awaitKilled(within(t), p), "ended by itself")
}
