package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
)

func TestPsql(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t).URL

	t.Run("PrintsRowsWhereItIsNotInstalled", func(t *testing.T) {
		t.Parallel()
		cmd := lab(t, t.TempDir(), []string{"PATH=" + t.TempDir(), "DATABASE_URL=" + databaseURL}, "psql")
		cmd.Stdin = strings.NewReader("SELECT 1 AS a; SELECT 'Käfer' AS b;\nSELECT nothing;\n\nSELECT *\n FROM (VALUES (1, E'c;\\nd'), (2, NULL)) AS v (n, word)")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		var lines []string
		for line := range strings.Lines(string(out)) {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
		require.Equal(t, []string{
			// A script sees what a person sees.
			"psql is not installed. A statement ends with a semicolon at the end of a line, Ctrl-D ends this.",
			"a", "1", "SELECT 1", "b", "Käfer", "SELECT 1",
			`ERROR: column "nothing" does not exist (SQLSTATE 42703)`,
			"n  word", `1  c;\nd`, "2", "SELECT 2",
		}, lines)
	})

	t.Run("EndsWithTheConnection", func(t *testing.T) {
		t.Parallel()
		cmd := lab(t, t.TempDir(), []string{"PATH=" + t.TempDir(), "DATABASE_URL=" + databaseURL}, "psql")
		cmd.Stdin = strings.NewReader("SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 'never' AS n;\n")
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.NotContains(t, string(out), "never")
	})

	// Every user of the machine can read a command line.
	t.Run("KeepsThePasswordOffTheCommandLine", func(t *testing.T) {
		t.Parallel()
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "psql"), []byte("#!/bin/sh\necho \"$@\"; echo \"$PGPASSWORD\"; exec /bin/cat\n"), 0o700)) //nolint:gosec // a program
		cmd := lab(t, t.TempDir(), []string{"PATH=" + bin, "DATABASE_URL=postgres://who:secret@127.0.0.1:1/cars"}, "psql")
		cmd.Stdin = strings.NewReader("SELECT 1;\n")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "postgres://who@127.0.0.1:1/cars\nsecret\nSELECT 1;\n", string(out))
	})

	t.Run("RepeatsNoPassword", func(t *testing.T) {
		t.Parallel()
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "psql"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o700)) //nolint:gosec // a program
		for _, path := range []string{t.TempDir(), bin} {
			for _, malformed := range []string{"postgres://who:secret/x@127.0.0.1:1/cars", "host = db password = secret word", "secret"} {
				out, err := lab(t, t.TempDir(), []string{"PATH=" + path, "DATABASE_URL=" + malformed}, "psql").CombinedOutput()
				require.Error(t, err)
				require.Contains(t, string(out), "DATABASE_URL")
				require.NotContains(t, string(out), "secret")
			}
		}
		out, err := lab(t, t.TempDir(), []string{"PATH=" + bin, "DATABASE_URL=host=db password=secret"}, "psql").CombinedOutput()
		require.Error(t, err, "psql would get the password as an argument")
		require.NotContains(t, string(out), "secret")
	})
}
