package retention_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/lab/labtest"
)

func TestOldRowsGoOnceTheSlotHasConfirmedThem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	r.rows(t, "younger", 2, 13)
	r.follow(t)
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 3, result.Deleted)
	require.False(t, result.Left)
	require.WithinDuration(t, time.Now().AddDate(0, 0, -13), *result.OldestKept, 30*time.Minute)
	require.Equal(t, "younger 2", r.kept(t))

	again, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Zero(t, again.Deleted)
	r.exec(t, "DELETE FROM outbox")
	empty, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Equal(t, retention.Result{}, empty)
}

func TestRowsGoInSmallBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 45, 15) // more than two batches a wait
	r.rows(t, "younger", 1, 13)
	r.follow(t)
	var batches []int64
	r.hook.after = func(query string, rows int64) {
		if query == "RetentionDelete" {
			batches = append(batches, rows)
		}
	}
	result, err := r.purger(t, func(c *retention.Config) { c.Batch = 2 }).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 45, result.Deleted)
	require.Len(t, batches, 23)
	require.LessOrEqual(t, max(batches[0], batches[21]), int64(2))
	require.Equal(t, "younger 1", r.kept(t))
}

func TestTwoRunsAtOnceDeleteEachRowOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 2000, 15)
	r.follow(t)
	purger := r.purger(t, func(c *retention.Config) { c.Batch = 20 })
	var results [2]retention.Result
	var runs sync.WaitGroup
	for i := range results {
		conn := r.connect(t)
		runs.Go(func() {
			var err error
			if results[i], err = purger.Purge(t.Context(), conn); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	require.EqualValues(t, 2000, results[0].Deleted+results[1].Deleted)
	require.Empty(t, r.kept(t))
}

// Lambda stops a function at its timeout, so a run that cannot finish ends before that, and says so.
func TestTooLittleTimeIsLeftToTheNextRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	r.follow(t)
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience+5*time.Second) // a wait may take Patience
	defer cancel()
	result, err := r.purger(t, nil).Purge(ctx, r.conn)
	require.NoError(t, err)
	require.True(t, result.Left)
	require.Zero(t, result.Deleted)
	require.NotNil(t, result.OldestKept)
	require.Equal(t, "older 3", r.kept(t))
}

func TestPlanDeletesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	r.rows(t, "younger", 2, 13)
	r.follow(t)
	plan, err := r.purger(t, nil).Plan(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 3, plan.Due)
	require.WithinDuration(t, time.Now().AddDate(0, 0, -15), *plan.Oldest, 30*time.Minute)
	require.Regexp(t, `^[0-9A-F]+/[0-9A-F]+$`, plan.Confirmed)
	require.Equal(t, "older 3, younger 2", r.kept(t))
}

// With many rows a look at all of them would take longer and longer, and most runs find little.
func TestDueRowsAreFoundByTheIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "younger", 20_000, 1)
	r.rows(t, "older", 5, 15)
	r.exec(t, "ANALYZE outbox")
	rows, err := r.pool.Query(t.Context(), "EXPLAIN "+dbgen.RetentionDue, 14*24, 10_000)
	require.NoError(t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Contains(t, strings.Join(plan, "\n"), "outbox_created_at_idx")
}
