package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rds-outbox-demo/lab/private"
)

// FindRunning returns the URL of the server that runs on dir, for programs beside the one that started it.
func FindRunning(dir string) (string, error) {
	resolved, err := resolve(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	_, port, ok := postmaster(dataDir(resolved))
	if err != nil || !ok {
		return "", fmt.Errorf("no local PostgreSQL runs on %s: start it with `make dev`, or set DATABASE_URL", dir)
	}
	password, err := os.ReadFile(passwordFile(dir))
	if err != nil {
		return "", fmt.Errorf("reading the local PostgreSQL's password: %w", err)
	}
	return serverURL(strings.TrimSpace(string(password)), port, database), nil
}

// Remove deletes dir with all its data, after stopping a server that an owner who was killed left behind on it. It refuses while a
// process owns the server.
func Remove(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	dir, err := resolve(dir)
	if err != nil {
		return err
	}
	lock, err := own(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := stopLeftover(ctx, dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// resolve spells an existing folder the one way that postmaster.pid and the server's command line do.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// own makes this process the owner of dir until the file is closed.
func own(dir string) (*os.File, error) {
	lock, err := private.Lock(dir)
	if err != nil {
		return nil, fmt.Errorf("another process runs PostgreSQL on %s (is `make dev` running elsewhere?): %w", dir, err)
	}
	return lock, nil
}

// stopLeftover ends a server on dir whose owner and watchdog were both killed. The caller holds the lock, so no owner lives.
func stopLeftover(ctx context.Context, dir string) error {
	data := dataDir(dir)
	pid, _, ours := postmaster(data)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if !ours {
			break
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping the PostgreSQL (process %d) that an earlier run left behind: %w", pid, err)
		}
		for patience := time.Now().Add(3 * time.Second); ours && time.Now().Before(patience); ours = owns(pid, data) {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	if ours {
		return fmt.Errorf("the PostgreSQL (process %d) that an earlier run left behind does not end: stop it and try again", pid)
	}
	// Without a process of that number PostgreSQL clears the file itself. A zombie of that number, another process that has it by
	// now, and a file cut short make it refuse. (It sees backends without a postmaster by their shared memory, not by this file.)
	file := filepath.Join(data, "postmaster.pid")
	if _, err := os.Stat(file); err == nil && (pid <= 0 || syscall.Kill(pid, 0) == nil) {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// postmaster returns the process and port that postmaster.pid names, and whether that process is
// the server of this data directory. The file of a killed server may carry the number of any other
// process by now, which must never be signalled.
func postmaster(data string) (pid, port int, ours bool) {
	raw, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0, 0, false
	}
	// Process id, data directory, start time, port, and more.
	lines := strings.Split(string(raw), "\n")
	if len(lines) < 4 {
		return 0, 0, false
	}
	pid, _ = strconv.Atoi(lines[0])
	port, _ = strconv.Atoi(lines[3])
	return pid, port, pid > 0 && port > 0 && owns(pid, data)
}

// owns reports whether process pid is the postmaster of this data directory, by its command line. A zombie has none.
func owns(pid int, data string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		// macOS has no /proc.
		line, _ = exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	words := strings.ReplaceAll(string(line), "\x00", " ")
	return strings.Contains(words, "/bin/postgres -D "+data+" ")
}
