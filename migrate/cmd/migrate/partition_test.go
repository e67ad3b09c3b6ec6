package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
)

const validating, attaching = "VALIDATE CONSTRAINT", "RENAME TO outbox;"

// A killed process tidies up nothing. Its CHECK would refuse every insert from a week later on.
func TestAnyCommandRemovesWhatAKilledPartitionLeft(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before string
		next   []string
	}{
		"Up":             {validating, []string{"up"}},
		"UpFromAttach":   {attaching, []string{"up"}},
		"DownTo":         {validating, []string{"down-to", "3"}},
		"PartitionAgain": {attaching, []string{"partition"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t).URL
			signalPartition(t, url, test.before, syscall.SIGKILL)
			require.Equal(t, []string{"outbox_partition_check", "outbox_partitioned"}, leftovers(t, url))
			_, errs, code := program(t, url, test.next...)
			require.Equal(t, 0, code, errs)
			require.Empty(t, leftovers(t, url))
		})
	}
}

// To validate the table may take long, and then somebody presses Ctrl-C.
func TestAnInterruptedPartitionLeavesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t).URL
	signalPartition(t, url, validating, os.Interrupt)
	require.Empty(t, leftovers(t, url))
}

// signalPartition runs migrate partition, and sends the signal before a statement that contains text. It returns when the process and its
// session have ended.
func signalPartition(t *testing.T, url, text string, signal os.Signal) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	_, err = db.Exec(t.Context(), fmt.Sprintf(`SELECT pg_advisory_lock(1);
		CREATE FUNCTION public.hold() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			IF current_query() LIKE '%%%s%%' THEN PERFORM pg_advisory_xact_lock(1); END IF;
		END $$;
		CREATE EVENT TRIGGER hold ON ddl_command_start EXECUTE FUNCTION public.hold()`, text))
	require.NoError(t, err)
	cmd := command(t, nil, url, "partition")
	require.NoError(t, cmd.Start())
	var session int
	labtest.Eventually(t, "the statement", func() bool {
		return db.QueryRow(t.Context(), `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&session) == nil
	})
	require.NoError(t, cmd.Process.Signal(signal))
	require.Error(t, cmd.Wait())
	// The server notices a dead client only when it has something to send.
	_, err = db.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE pid = $1", session)
	require.NoError(t, err)
	_, err = db.Exec(t.Context(), "DROP EVENT TRIGGER hold; DROP FUNCTION public.hold()")
	require.NoError(t, err)
}

func leftovers(t *testing.T, url string) []string {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	rows, err := db.Query(t.Context(), `SELECT conname AS name FROM pg_constraint WHERE conname = 'outbox_partition_check' AND coninhcount = 0
		UNION SELECT relname FROM pg_class WHERE relname = 'outbox_partitioned' ORDER BY name`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}
