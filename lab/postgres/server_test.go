package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	binaries := findBinaries(t)

	t.Run("RestartKeepsData", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: filepath.Join(tempDir(t), "with space"), Binaries: binaries, Durable: true}
		for start := range 3 {
			server := mustStart(t, cfg)
			require.Equal(t, strconv.Itoa(start), query(t, server.URL(), "SELECT count(*) FROM kept"))
			query(t, server.URL(), "INSERT INTO kept VALUES (1) RETURNING 1")
			require.NoError(t, server.Stop(t.Context()))
			require.False(t, running(server.PID()))
			require.NoError(t, server.Stop(t.Context()), "stopping twice")
		}
		logs, err := filepath.Glob(filepath.Join(cfg.Dir, "server.log*"))
		require.NoError(t, err)
		require.Len(t, logs, 2)
		for path, mode := range map[string]os.FileMode{cfg.Dir: 0o700, logs[0]: 0o600, logs[1]: 0o600} { // a log may quote rows
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode().Perm(), path)
		}
	})

	t.Run("LogIsBoundedWhileItRuns", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries, Settings: map[string]string{"log_statement": "all"}, maxLog: 10_000}
		server := mustStart(t, cfg)
		older := logFile(cfg.Dir) + ".1"
		labtest.Eventually(t, "a log that was too long", func() bool {
			query(t, server.URL(), "SELECT 'before'")
			info, err := os.Stat(older)
			return err == nil && info.Size() > cfg.maxLog && info.Mode().Perm() == 0o600
		})
		var logged []byte
		labtest.Eventually(t, "an emptied log that goes on", func() bool {
			query(t, server.URL(), "SELECT 'after'")
			var err error
			logged, err = os.ReadFile(logFile(cfg.Dir))
			require.NoError(t, err)
			return strings.Contains(string(logged), "'after'") && int64(len(logged)) < cfg.maxLog
		})
		require.NotContains(t, string(logged), "\x00", "the server writes at the end, not where the end was")
	})

	t.Run("IsSetUpForLogicalReplication", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries, Settings: map[string]string{"wal_sender_timeout": "3s", "max_connections": "301"}}
		server := mustStart(t, cfg)
		for setting, want := range map[string]string{
			"wal_level": "logical", "TimeZone": "UTC", "fsync": "off", "full_page_writes": "on", "synchronous_commit": "on",
			"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "wal_sender_timeout": "3s", "max_connections": "301",
			"server_encoding": "UTF8", "password_encryption": "scram-sha-256",
		} {
			require.Equal(t, want, query(t, server.URL(), "SHOW "+setting), setting)
		}
		require.Regexp(t, `^17\.`, query(t, server.URL(), "SHOW server_version"))
		require.Equal(t, "outboxdb dbadmin", query(t, server.URL(), "SELECT current_database() || ' ' || current_user"))
		require.NotEmpty(t, query(t, server.URL(), "SELECT lsn::text FROM pg_create_logical_replication_slot('s', 'pgoutput')"))
		require.Equal(t, "é", query(t, server.URL(), "SELECT lower('É')"))

		password := filepath.Join(cfg.Dir, "password")
		info, err := os.Stat(password)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		_, err = pgx.Connect(t.Context(), strings.Replace(server.URL(), "dbadmin:", "dbadmin:wrong", 1))
		require.ErrorContains(t, err, "password authentication failed")

		url, err := FindRunning(cfg.Dir)
		require.NoError(t, err)
		require.Equal(t, server.URL(), url)

		group, err := syscall.Getpgid(server.PID())
		require.NoError(t, err)
		require.Equal(t, server.PID(), group, "Ctrl-C in a terminal must not reach it before us")
	})

	t.Run("CommittedRowsSurviveSIGKILL", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries}
		server := mustStart(t, cfg)
		query(t, server.URL(), "INSERT INTO kept SELECT generate_series(1, 1000) RETURNING 1")
		busy := keepBusy(t, server.URL())
		children := backends(t, server.URL())
		require.Contains(t, children, busy)
		require.NoError(t, server.Kill())
		select {
		case <-server.Done():
		default:
			t.Fatal("Done is still open")
		}
		for _, pid := range children { // a process closes its files an instant before it is off the list
			labtest.Eventually(t, "the end of a child", func() bool { return !running(pid) })
		}
		require.Equal(t, "1000", query(t, mustStart(t, cfg).URL(), "SELECT count(*) FROM kept"))
	})

	t.Run("StopIsBoundedBesideASilentReader", func(t *testing.T) {
		t.Parallel()
		server := mustStart(t, Config{Dir: tempDir(t), Binaries: binaries, Settings: map[string]string{"wal_sender_timeout": "0"}}) // never ends the reader
		holdSlot(t, server.URL())
		require.NoError(t, server.Stop(t.Context()))
	})

	t.Run("TriesAnotherPort", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { _ = taken.Close() }()
		ports := []int{taken.Addr().(*net.TCPAddr).Port}
		server := mustStart(t, Config{Dir: tempDir(t), Binaries: binaries, pickPort: func() (int, error) {
			if len(ports) > 0 {
				port := ports[0]
				ports = nil
				return port, nil
			}
			return freePort()
		}})
		require.Empty(t, ports)
		require.Equal(t, "1", query(t, server.URL(), "SELECT 1"))
	})

	t.Run("RefusesFolderInUse", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries}
		server := mustStart(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := Start(ctx, cfg)
		require.ErrorContains(t, err, "another process runs PostgreSQL on "+cfg.Dir)
		require.ErrorContains(t, Remove(ctx, cfg.Dir), "another process runs PostgreSQL on "+cfg.Dir)
		require.Equal(t, "1", query(t, server.URL(), "SELECT 1"))
	})

	t.Run("BadSettingShowsTheLog", func(t *testing.T) {
		t.Parallel()
		_, err := Start(t.Context(), Config{Dir: tempDir(t), Binaries: binaries, Settings: map[string]string{"no_such_setting": "x"}})
		require.ErrorContains(t, err, `unrecognized configuration parameter "no_such_setting"`)
	})

	t.Run("CancelledStartLeavesNothing", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries}
		require.NoError(t, mustStart(t, cfg).Stop(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		cfg.pickPort = func() (int, error) { cancel(); return freePort() }
		_, err := Start(ctx, cfg)
		require.ErrorIs(t, err, context.Canceled)
		// The watchdog notices the end a moment later.
		labtest.Eventually(t, "the end of every process of the folder", func() bool { return !strings.Contains(processes(t, "command="), dataDir(cfg.Dir)) })
		_, err = FindRunning(cfg.Dir)
		require.ErrorContains(t, err, "make dev")
	})
}

func TestDataFolder(t *testing.T) {
	t.Parallel()
	binaries := findBinaries(t)

	t.Run("OfAnotherMajorVersion", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		require.NoError(t, os.Mkdir(dataDir(dir), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dataDir(dir), "PG_VERSION"), []byte("16\n"), 0o600))
		_, err := Start(t.Context(), Config{Dir: dir, Binaries: binaries})
		require.ErrorContains(t, err, "was made by PostgreSQL 16 and this is PostgreSQL 17: FRESH=1")
	})

	t.Run("OfSomebodyElseStays", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		require.NoError(t, os.Mkdir(dataDir(dir), 0o700))
		foreign := filepath.Join(dataDir(dir), "thesis.txt")
		require.NoError(t, os.WriteFile(foreign, []byte("years"), 0o600))
		_, err := Start(t.Context(), Config{Dir: dir, Binaries: binaries})
		require.ErrorContains(t, err, "is there another one that is not PostgreSQL's?")
		require.FileExists(t, foreign)
	})

	// PostgreSQL itself would refuse, because it takes any live process with that number for a
	// server.
	t.Run("WithARecycledProcessID", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries}
		server := mustStart(t, cfg)
		file := filepath.Join(dataDir(cfg.Dir), "postmaster.pid")
		left, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, server.Stop(t.Context()))
		bystander := exec.Command("sleep", "60")
		require.NoError(t, bystander.Start())
		defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
		_, rest, _ := strings.Cut(string(left), "\n")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "%d\n%s", bystander.Process.Pid, rest), 0o600))
		_, err = FindRunning(cfg.Dir)
		require.Error(t, err)

		mustStart(t, cfg)
		require.True(t, running(bystander.Process.Pid))
	})

	t.Run("WithAPidFileCutShort", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Dir: tempDir(t), Binaries: binaries}
		require.NoError(t, mustStart(t, cfg).Stop(t.Context()))
		require.NoError(t, os.WriteFile(filepath.Join(dataDir(cfg.Dir), "postmaster.pid"), nil, 0o600))
		mustStart(t, cfg)
	})
}

// findBinaries skips the test where npm has not run. In CI it fails instead.
func findBinaries(t *testing.T) string {
	t.Helper()
	binaries, err := FindBinaries(filepath.Join("..", ".."))
	if err == nil {
		return binaries
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// tempDir is a t.TempDir that others may enter, because a test of root may have to run as nobody.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// mustStart starts a server that ends with the test and has a table called kept.
func mustStart(t *testing.T, cfg Config) *Server {
	t.Helper()
	return mustStartAs(t, cfg, accounts())
}

func mustStartAs(t *testing.T, cfg Config, as []account) *Server {
	t.Helper()
	server, err := start(t.Context(), cfg, as)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	query(t, server.URL(), "CREATE TABLE IF NOT EXISTS kept (n int)")
	return server
}

// query returns the first value as text, "" without a row.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	value, err := pgx.CollectOneRow(rows, func(row pgx.CollectableRow) (string, error) { return string(row.RawValues()[0]), nil })
	if errors.Is(err, pgx.ErrNoRows) {
		return ""
	}
	require.NoError(t, err)
	return value
}

// backends returns the server's processes but the postmaster.
func backends(t *testing.T, url string) []int {
	t.Helper()
	var pids []int
	for _, pid := range strings.Split(query(t, url, "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity"), " ") {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		pids = append(pids, n)
	}
	require.Greater(t, len(pids), 3)
	return pids
}

// keepBusy returns a backend that computes for two seconds and so does not notice that its postmaster is gone.
func keepBusy(t *testing.T, url string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	conn.PgConn().Frontend().SendQuery(&pgproto3.Query{String: "DO 'BEGIN WHILE clock_timestamp() < now() + ''2s'' LOOP END LOOP; END'"})
	require.NoError(t, conn.PgConn().Frontend().Flush())
	return int(conn.PgConn().PID())
}

// holdSlot opens a replication stream that never confirms anything.
func holdSlot(t *testing.T, url string) {
	t.Helper()
	query(t, url, "CREATE PUBLICATION p FOR TABLE kept")
	query(t, url, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')::text")
	conn, err := pgx.Connect(t.Context(), url+"&replication=database")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	conn.PgConn().Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')"})
	require.NoError(t, conn.PgConn().Frontend().Flush())
	labtest.Eventually(t, "a reader of the slot", func() bool {
		return query(t, url, "SELECT active FROM pg_replication_slots") == "t"
	})
	query(t, url, "INSERT INTO kept VALUES (1) RETURNING 1")
}

// processes returns one column of ps for every process.
func processes(t *testing.T, column string) string {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-ww", "-o", column).Output()
	if err != nil {
		t.Skipf("no ps on this machine: %v", err)
	}
	return string(out)
}

// running reports whether a process is there and no zombie that nobody collects.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z")
	}
	return syscall.Kill(pid, 0) == nil
}
