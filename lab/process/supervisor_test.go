package process_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

// keep keeps a script running until the test ends.
func keep(t *testing.T, script string, more ...func(*process.SupervisorConfig)) *process.Supervisor {
	t.Helper()
	c := process.SupervisorConfig{
		Config: process.Config{Program: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}},
		Name:   "the script", Log: filepath.Join(t.TempDir(), "log"), RestartDelay: 10 * time.Millisecond, Patience: time.Second, Ended: func(error) {},
	}
	for _, change := range more {
		change(&c)
	}
	s := process.NewSupervisor(c)
	require.NoError(t, s.Start())
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func TestKilledProcessIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := keep(t, "exec sleep 600")
	first, err := s.Process(within(t))
	require.NoError(t, err)
	require.NoError(t, s.Kill(within(t)))
	require.True(t, first.Killed())
	second, err := s.Process(within(t))
	require.NoError(t, err)
	require.NotSame(t, first, second)
	require.Equal(t, 2, s.Starts())
	require.Zero(t, s.Hits(), "it was ours")

	require.NoError(t, syscall.Kill(second.PID(), syscall.SIGKILL))
	labtest.Eventually(t, "another one's kill to be seen", func() bool { return s.Hits() == 1 })
}

func TestProcessThatIsTakenDownStaysDownUntilStart(t *testing.T) {
	t.Parallel()
	s := keep(t, "echo begun; exec sleep 600")
	labtest.Eventually(t, "the first line", func() bool { return said(t, s) == "begun\n" })
	require.NoError(t, s.TakeDown(within(t)))
	require.False(t, s.Wanted())
	_, err := s.Process(within(t))
	require.ErrorIs(t, err, process.ErrDown)
	require.ErrorIs(t, s.Kill(within(t)), process.ErrDown)
	require.Equal(t, 1, s.Starts())
	require.NoError(t, s.Start())
	labtest.Eventually(t, "the log to go on", func() bool { return said(t, s) == "begun\nbegun\n" })

	require.NoError(t, s.Stop(within(t)))
	require.NoError(t, s.Start())
	labtest.Eventually(t, "a new log", func() bool { return said(t, s) == "begun\n" })
	before, err := os.ReadFile(s.Log() + ".1")
	require.NoError(t, err)
	require.Equal(t, "begun\nbegun\n", string(before))
}

func said(t *testing.T, s *process.Supervisor) string {
	t.Helper()
	content, err := os.ReadFile(s.Log())
	require.NoError(t, err)
	return string(content)
}

// A process that ends for another reason than our SIGKILL was not killed by us.
func TestEndByItselfIsNoKill(t *testing.T) {
	t.Parallel()
	s := keep(t, "trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done", func(c *process.SupervisorConfig) { c.RestartDelay = time.Hour })
	labtest.Eventually(t, "the first line", func() bool { return said(t, s) == "ready\n" })
	p, err := s.Process(within(t))
	require.NoError(t, err)
	p.Signal(syscall.SIGTERM)
	<-p.Done()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, s.TakeDown(ctx), "there was nothing to kill")
}

func TestProgramThatEndsTooOftenIsGivenUp(t *testing.T) {
	t.Parallel()
	var forgiven atomic.Bool
	forgiven.Store(true)
	gaveUp := make(chan int, 1)
	s := keep(t, "exit 3", func(c *process.SupervisorConfig) {
		c.MaxEnds, c.Soon, c.Forgiven = 3, time.Hour, forgiven.Load
		c.GaveUp = func(ends int, err error) {
			if err != nil && err.Error() == "exit status 3" {
				gaveUp <- ends
			}
		}
	})
	labtest.Eventually(t, "more ends than are forgiven later", func() bool { return s.Starts() > 5 })
	require.True(t, s.Wanted())
	forgiven.Store(false)
	require.Equal(t, 3, <-gaveUp)
	require.False(t, s.Wanted())
	require.NoError(t, s.Start(), "a person may try again")
	require.Equal(t, 3, <-gaveUp)
}

// A program that cannot work may need long to find that out.
func TestProgramThatNeverWorkedIsGivenUp(t *testing.T) {
	t.Parallel()
	var worked atomic.Bool
	worked.Store(true)
	gaveUp := make(chan int, 1)
	s := keep(t, "exit 3", func(c *process.SupervisorConfig) {
		c.MaxEnds, c.Soon, c.Worked = 3, 0, worked.Load // no end is soon
		c.GaveUp = func(ends int, _ error) { gaveUp <- ends }
	})
	labtest.Eventually(t, "more ends than are allowed in a row", func() bool { return s.Starts() > 5 })
	require.True(t, s.Wanted())
	worked.Store(false)
	require.Equal(t, 3, <-gaveUp)
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	s := keep(t, "trap '' TERM; echo ready; while true; do sleep 0.05; done")
	labtest.Eventually(t, "the first line", func() bool { return said(t, s) == "ready\n" })
	p, err := s.Process(within(t))
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Stop(ended)) // its patience is over at once
	<-p.Done()
	require.True(t, p.Killed())
	require.False(t, s.Wanted())
}
