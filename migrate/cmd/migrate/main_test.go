package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/domain"
	migrations "rds-outbox-demo/sql/migrations"
)

// asProgram makes the test binary the program itself.
const asProgram = "MIGRATE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestProgram(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	newest := len(files)
	upToDate := fmt.Sprintf("migrate: up to date at version %d\n", newest)

	t.Run("PartitionTwice", func(t *testing.T) {
		t.Parallel()
		url := pgtest.NewEmpty(t)
		_, errs, code := program(t, url, "partition")
		require.Equal(t, 1, code)
		require.Contains(t, errs, "is pending: apply the migrations first")
		_, _, code = program(t, url, "up")
		require.Equal(t, 0, code)
		out, _, code := program(t, url, "partition")
		require.Equal(t, 0, code)
		require.Regexp(t, `^migrate: outbox is partitioned by day from .*T00:00:00Z on; its rows until then are in outbox_until_[0-9_]*\n$`, out)
		out, _, code = program(t, url, "partition")
		require.Equal(t, 0, code)
		require.Equal(t, "migrate: outbox was partitioned already\n", out)
	})

	t.Run("UpTwiceStatusDownAndUp", func(t *testing.T) {
		t.Parallel()
		url := pgtest.NewEmpty(t)

		out, _, code := program(t, url, "status")
		require.Equal(t, 0, code)
		require.Contains(t, out, "pending                  00001_cars.sql\n")
		require.Contains(t, out, fmt.Sprintf("\nmigrate: at version 0, %d pending: run migrate up\n", newest))

		out, _, code = program(t, url, "up")
		require.Equal(t, 0, code)
		require.Regexp(t, fmt.Sprintf(`^applied 00001_cars\.sql \(.*s\)\n(applied .*\n){%d}%s$`, newest-1, upToDate), out)

		out, _, code = program(t, url, "up")
		require.Equal(t, 0, code)
		require.Equal(t, upToDate, out)

		out, _, code = program(t, url, "status")
		require.Equal(t, 0, code)
		require.Regexp(t, fmt.Sprintf(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  \d{5}_\w+\.sql\n){%d}%s$`, newest, upToDate), out)

		out, _, code = program(t, url, "down-to", fmt.Sprint(newest-1))
		require.Equal(t, 0, code)
		require.Regexp(t, fmt.Sprintf(`^took back %s \(.*s\)\nmigrate: at version %d\n$`, regexp.QuoteMeta(files[newest-1]), newest-1), out)

		out, _, code = program(t, url, "up")
		require.Equal(t, 0, code)
		require.Regexp(t, fmt.Sprintf(`^applied %s \(.*s\)\n%s$`, regexp.QuoteMeta(files[newest-1]), upToDate), out)
	})

	// The examples are typed beside a running `make dev`, which has a slot and rows.
	t.Run("ExamplesOfDownToWorkBesideARelay", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		slot := "migrate_example_" + strings.ToLower(rand.Text()[:8]) // slots belong to the server
		for _, statement := range []string{
			strings.ReplaceAll(domain.Miscount, "$1", "1"),
			"SELECT pg_create_logical_replication_slot('" + slot + "', 'pgoutput')",
		} {
			_, err := db.Pool.Exec(t.Context(), statement)
			require.NoError(t, err)
		}

		for _, file := range []string{"README.md", "Makefile"} {
			text, err := os.ReadFile("../../../" + file)
			require.NoError(t, err)
			example := regexp.MustCompile(`CMD="(down-to \d+)"`).FindSubmatch(text)
			require.NotNil(t, example, file)
			out, errs, code := program(t, db.URL, strings.Fields(string(example[1]))...)
			require.Equal(t, 0, code, errs)
			require.Contains(t, out, "migrate: at version ")
		}

		_, errs, code := program(t, db.URL, "down-to", "2")
		require.Equal(t, 1, code)
		require.Contains(t, errs, "in use by replication slot "+slot)
		require.Contains(t, errs, "done before it: nothing")

		_, errs, code = program(t, db.URL, "down-to", "5")
		require.Equal(t, 1, code)
		require.Equal(t, "migrate: migrating down to version 5 would delete 1 row of car_stats: nothing was changed; with YES=1 it deletes them\n", errs)
		out, errs, code := programWith(t, []string{"YES=1"}, db.URL, "down-to", "5")
		require.Equal(t, 0, code, errs)
		require.Contains(t, out, "migrate: at version 5\n")
	})

	t.Run("TwoProcessesAtOnce", func(t *testing.T) {
		t.Parallel()
		url := pgtest.NewEmpty(t)
		type answer struct {
			out, errs string
			code      int
		}
		answers := make(chan answer)
		for range 2 {
			go func() {
				out, errs, code := program(t, url, "up")
				answers <- answer{out, errs, code}
			}()
		}
		first, second := <-answers, <-answers
		require.Equal(t, 0, first.code, first.errs)
		require.Equal(t, 0, second.code, second.errs)
		require.Equal(t, newest, strings.Count(first.out+second.out, "applied "))
		require.Equal(t, 2, strings.Count(first.out+second.out, upToDate))
	})

	t.Run("FailureIsExitCode1", func(t *testing.T) {
		t.Parallel()
		out, errs, code := program(t, "postgres://u:very-secret@127.0.0.1:1/cars?sslmode=disable", "up")
		require.Equal(t, 1, code)
		require.Empty(t, out)
		require.Contains(t, errs, "migrate: connecting to database cars at 127.0.0.1:1: ")
		require.NotContains(t, errs, "very-secret")
	})

	t.Run("WrongUseIsExitCode2", func(t *testing.T) {
		t.Parallel()
		for want, args := range map[string][]string{
			"no command":               {},
			`not a command: ["down"]`:  {"down"},
			`not a command: ["up" "3`:  {"up", "3"},
			"down-to -1: not a ver":    {"down-to", "-1"},
			"down-to four: not a ver":  {"down-to", "four"},
			`not a command: ["down-to`: {"down-to"},
		} {
			out, errs, code := program(t, "postgres://127.0.0.1:1/cars", args...)
			require.Equal(t, 2, code, args)
			require.Empty(t, out)
			require.Contains(t, errs, want)
			require.Contains(t, errs, "usage: migrate up | status | down-to N | partition\n")
		}
		_, errs, code := program(t, "", "up")
		require.Equal(t, 2, code)
		require.Contains(t, errs, "DATABASE_URL is not set")
		_, errs, code = program(t, "postgres://u:very-secret@127.0.0.1:port/cars", "up")
		require.Equal(t, 2, code)
		require.Contains(t, errs, "DATABASE_URL: ")
		require.NotContains(t, errs, "very-secret")
	})
}

// program runs migrate as a process of its own.
func program(t *testing.T, url string, args ...string) (out, errs string, code int) {
	return programWith(t, nil, url, args...)
}

func programWith(t *testing.T, env []string, url string, args ...string) (out, errs string, code int) {
	cmd := command(t, env, url, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Error(err)
		return "", "", -1
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func command(t *testing.T, env []string, url string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "DATABASE_URL="+url, "GORACE=atexit_sleep_ms=0") // else each sleeps a second
	cmd.Env = append(cmd.Env, env...)
	return cmd
}
