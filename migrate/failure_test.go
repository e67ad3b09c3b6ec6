package migrate

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestFailures(t *testing.T) {
	t.Parallel()

	// goose tries again after some failures, and a rollback can fail after the statement it is for.
	t.Run("FindTheStatementOfAnError", func(t *testing.T) {
		t.Parallel()
		var f failures
		first, second := errors.New("first"), errors.New("second")
		for statement, err := range map[string]error{"ONE": first, "TWO": second, "FINE": nil} {
			ctx := f.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: statement})
			f.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{Err: err})
		}
		require.Equal(t, "ONE", f.statement(fmt.Errorf("running: %w", first)))
		require.Equal(t, "TWO", f.statement(fmt.Errorf("running: %w", second)))
		require.Empty(t, f.statement(errors.New("parsing the file")))
	})

	t.Run("LongStatementsAreCut", func(t *testing.T) {
		t.Parallel()
		err := &FailedError{File: "00001_a.sql", Direction: "up", Statement: "\n" + strings.Repeat("é", 1000), Err: errors.New("no")}
		require.Equal(t, "migrating up with 00001_a.sql: no\nstatement: "+strings.Repeat("é", 400)+" ...\ndone before it: nothing", err.Error())
	})
}
