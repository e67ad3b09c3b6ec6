package console

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	run := func(t *testing.T, input string) string {
		t.Helper()
		var out bytes.Buffer
		require.NoError(t, Run(t.Context(), db.URL, strings.NewReader(input), &out))
		return out.String()
	}

	t.Run("AlignsTables", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, strings.Join([]string{
			`n  word`,
			`-  ----`,
			`1  Käfer`,
			`2  NULL`,
			`3  a\nb`,
			`SELECT 3`,
			``,
		}, "\n"), run(t, "SELECT * FROM (VALUES (1, 'Käfer'), (2, NULL), (3, E'a\\nb')) AS v (n, word);\n"))
	})

	t.Run("TakesSeveralStatementsALineAndLinesAStatement", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "a\n-\n1\nSELECT 1\nb\n-\n2\nSELECT 1\nc\n-\n3\nSELECT 1\n", run(t, "SELECT 1 AS a; SELECT 2 AS b;\nSELECT 3\n\n AS c;\n"))
	})

	t.Run("KnowsWhereAStatementEnds", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "NOTICE: one;\nNOTICE: two\nDO\n", run(t, "DO $x$ BEGIN\nRAISE NOTICE 'one;';\nRAISE NOTICE 'two';\nEND; $x$;\n"))
		require.Equal(t, "t\n-\n;\\n--\nSELECT 1\n", run(t, "SELECT ';\n--' /* ;\n*/ AS t -- done;\n;\n"))
	})

	t.Run("GoesOnAfterAnError", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "ERROR: column \"nothing\" does not exist (SQLSTATE 42703)\nn\n-\n1\nSELECT 1\n", run(t, "SELECT nothing;\nSELECT 1 AS n;\n"))
	})

	t.Run("ListsTablesAndEnds", func(t *testing.T) {
		t.Parallel()
		out := run(t, "\\d\n\\?\n\\q\nSELECT 1 AS never;\n")
		require.Contains(t, out, "table             what a row is\n")
		require.Contains(t, out, "cars              One car as it is now.\n")
		require.Contains(t, out, "\\q ends, \\d lists the tables")
		require.NotContains(t, out, "never")
	})

	t.Run("TriesAStatementThatTheInputCutsOff", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "n\n-\n1\nSELECT 1\n", run(t, "SELECT 1 AS n"))
	})

	t.Run("EndsWithItsContext", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, typing := io.Pipe()
		defer func() { _ = typing.Close() }()
		go func() {
			_, _ = typing.Write([]byte("\n")) // returns when it is read: earlier, Run may still be connecting
			cancel()
		}()
		require.NoError(t, Run(ctx, db.URL, in, io.Discard))
	})

	t.Run("UnreachableIsAnError", func(t *testing.T) {
		t.Parallel()
		require.ErrorContains(t, Run(t.Context(), "postgres://127.0.0.1:1/x?sslmode=disable", strings.NewReader(""), io.Discard), "127.0.0.1:1")
	})

	t.Run("ABrokenConnectionIsAnError", func(t *testing.T) {
		t.Parallel()
		require.Error(t, Run(t.Context(), db.URL, strings.NewReader("SELECT pg_terminate_backend(pg_backend_pid());\n"), io.Discard))
	})
}
