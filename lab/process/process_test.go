package process_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

// The test's own binary is the owner that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("PROCESS_OWNER") == "1" {
		p, err := process.Start(process.Config{Program: "/bin/sh", Args: []string{"-c", "echo $$; exec sleep 600"}, Output: os.Stdout})
		if err != nil {
			os.Exit(1)
		}
		<-p.Done()
	}
	os.Exit(m.Run())
}

func output(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestOwnerThatIsKilledTakesItsProcessAlong(t *testing.T) {
	t.Parallel()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "PROCESS_OWNER=1")
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, 0), "the process runs")

	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()
	labtest.Eventually(t, "the end of the process", func() bool { return gone(pid) })
}

// gone also sees a process that has ended and that nobody has waited for.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return syscall.Kill(pid, 0) != nil
	}
	return strings.Contains(string(stat), ") Z ")
}

func TestStopGivesTimeAndThenKills(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		patience     time.Duration
		killed       bool
	}{
		{"EndsBySIGTERM", `trap 'exit 0' TERM; echo ready; while true; do sleep 0.05; done`, labtest.Patience, false},
		{"IsKilled", `trap '' TERM; echo ready; while true; do sleep 0.05; done`, time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out := output(t)
			p, err := process.Start(process.Config{Program: "/bin/sh", Args: []string{"-c", test.script}, Env: os.Environ(), Output: out})
			require.NoError(t, err)
			labtest.Eventually(t, "the first line of the program", func() bool {
				said, err := os.ReadFile(out.Name())
				return err == nil && string(said) == "ready\n"
			})
			p.Stop(context.Background(), test.patience)
			require.Equal(t, test.killed, p.Killed())
		})
	}
}

func TestListenerIsInherited(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	out := output(t)
	p, err := process.Start(process.Config{Program: "/bin/sh", Args: []string{"-c", "test -e /dev/fd/4 && ! test -e /dev/fd/3 && echo yes"}, Env: os.Environ(), Output: out, Inherited: file})
	require.NoError(t, err)
	<-p.Done()
	require.NoError(t, p.Err())
}
