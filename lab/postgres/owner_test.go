package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// ownerDir and ownerBinaries make the test binary a process that owns a server until it is killed.
const (
	ownerDir      = "LAB_POSTGRES_TEST_DIR"
	ownerBinaries = "LAB_POSTGRES_TEST_BINARIES"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDir); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if _, err := Start(ctx, Config{Dir: dir, Binaries: os.Getenv(ownerBinaries)}); err != nil {
			_, _ = fmt.Fprintln(os.Stdout, err)
			os.Exit(1)
		}
		_, _ = fmt.Fprintln(os.Stdout, "ready")
		select {}
	}
	os.Exit(m.Run())
}

func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	binaries := findBinaries(t)

	t.Run("ServerEnds", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		owner := startOwner(t, dir, binaries)
		url, err := FindRunning(dir)
		require.NoError(t, err)
		pid, _, _ := postmaster(dataDir(dir))
		all := append(backends(t, url), pid)
		query(t, url, "INSERT INTO kept VALUES (1) RETURNING 1")

		require.NoError(t, owner.Process.Kill())
		for _, pid := range all {
			labtest.Eventually(t, "the end of a child", func() bool { return !running(pid) })
		}
		logged, err := os.ReadFile(logFile(dir))
		require.NoError(t, err)
		require.Contains(t, string(logged), "received fast shutdown request")
		require.Equal(t, "1", query(t, mustStart(t, Config{Dir: dir, Binaries: binaries}).URL(), "SELECT count(*) FROM kept"))
	})

	t.Run("NextStartEndsAnOrphan", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		owner := startOwner(t, dir, binaries)
		url, err := FindRunning(dir)
		require.NoError(t, err)
		query(t, url, "INSERT INTO kept VALUES (1) RETURNING 1")
		orphan := orphanServer(t, owner, dir)
		require.Equal(t, "1", query(t, url, "SELECT count(*) FROM kept"), "the orphan still answers")

		server := mustStart(t, Config{Dir: dir, Binaries: binaries})
		require.False(t, running(orphan))
		require.Equal(t, "1", query(t, server.URL(), "SELECT count(*) FROM kept"))
	})

	t.Run("RemoveEndsAnOrphan", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(tempDir(t), "postgres")
		orphan := orphanServer(t, startOwner(t, dir, binaries), dir)
		require.True(t, running(orphan))
		require.NoError(t, Remove(t.Context(), dir))
		require.False(t, running(orphan))
		require.NoDirExists(t, dir)
		require.NoError(t, Remove(t.Context(), dir), "nothing there")
		_, err := FindRunning(dir)
		require.ErrorContains(t, err, "no local PostgreSQL runs on "+dir)
	})

	t.Run("NextStartWaitsForOrphanedBackends", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		owner := startOwner(t, dir, binaries)
		url, err := FindRunning(dir)
		require.NoError(t, err)
		pid, _, _ := postmaster(dataDir(dir))
		busy := keepBusy(t, url)
		require.NoError(t, owner.Process.Kill())
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		_ = owner.Wait()

		mustStart(t, Config{Dir: dir, Binaries: binaries})
		labtest.Eventually(t, "the end of the busy backend", func() bool { return !running(busy) })
	})

	t.Run("DuringInitdb", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(tempDir(t), "postgres")
		// A look that comes late finds the folder in its place. Then the next owner is looked at.
		labtest.Eventually(t, "an owner that is killed in initdb", func() bool {
			if Remove(t.Context(), dir) != nil { // the one before is still ending
				return false
			}
			require.NoError(t, os.Mkdir(dir, 0o700))
			owner := exec.Command(os.Args[0])
			owner.Env = append(os.Environ(), ownerDir+"="+dir, ownerBinaries+"="+binaries)
			require.NoError(t, owner.Start())
			labtest.Eventually(t, "initdb's folder, or the one that it becomes", func() bool {
				made, _ := filepath.Glob(filepath.Join(dir, "data*", "PG_VERSION"))
				return len(made) > 0
			})
			require.NoError(t, owner.Process.Kill())
			_ = owner.Wait()
			_, err := os.Stat(dataDir(dir))
			return errors.Is(err, os.ErrNotExist)
		})

		server := mustStart(t, Config{Dir: dir, Binaries: binaries})
		require.Equal(t, "0", query(t, server.URL(), "SELECT count(*) FROM kept"))
		half, _ := filepath.Glob(filepath.Join(dir, "data.new-*"))
		require.Empty(t, half)
	})
}

// startOwner runs a process that owns a server on dir and waits until the server answers.
func startOwner(t *testing.T, dir, binaries string) *exec.Cmd {
	t.Helper()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerDir+"="+dir, ownerBinaries+"="+binaries)
	said, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	t.Cleanup(func() { _ = owner.Process.Kill(); _ = owner.Wait() })
	answer := make([]byte, len("ready"))
	_, err = said.Read(answer)
	require.NoError(t, err)
	require.Equal(t, "ready", string(answer))
	url, err := FindRunning(dir)
	require.NoError(t, err)
	query(t, url, "CREATE TABLE kept (n int)")
	return owner
}

// orphanServer kills the server's watchdog and then its owner, and returns the postmaster, which nobody minds now.
func orphanServer(t *testing.T, owner *exec.Cmd, dir string) int {
	t.Helper()
	orphan, _, ours := postmaster(dataDir(dir))
	require.True(t, ours)
	for _, pid := range groupMembers(t, orphan) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()
	return orphan
}

// groupMembers returns the processes of a group but its leader.
func groupMembers(t *testing.T, leader int) []int {
	t.Helper()
	var members []int
	for _, field := range strings.Fields(processes(t, "pid=")) {
		pid, err := strconv.Atoi(field)
		require.NoError(t, err)
		if group, err := syscall.Getpgid(pid); err == nil && group == leader && pid != leader {
			members = append(members, pid)
		}
	}
	require.NotEmpty(t, members)
	return members
}
