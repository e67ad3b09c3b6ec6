package outbox_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/domain/statements"
	"rds-outbox-demo/outbox"
)

// A statement that returns something would get nothing, and its caller would take that for the answer.
func TestBatchRefusesWhatReturnsSomething(t *testing.T) {
	t.Parallel()
	var batch outbox.Batch
	queries := dbgen.New(&batch)
	_, err := queries.CarGet(t.Context(), uuid.New())
	require.ErrorContains(t, err, "no result is there before Send")
	_, err = queries.CarPage(t.Context(), dbgen.CarPageParams{MaxRows: 1})
	require.ErrorContains(t, err, "no result is there before Send")
	_, err = queries.IdempotencyPurge(t.Context(), 1)
	require.ErrorContains(t, err, `"IdempotencyPurge :execrows" returns something`)
	require.NoError(t, batch.Send(t.Context(), nil), "it must be empty: sending would panic")
}

func TestBatchIsOneCommit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	count := func() (n int) {
		require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT "+domain.Count).Scan(&n))
		return n
	}
	twice := uuid.New()
	for _, ids := range [][]uuid.UUID{{twice, twice}, {uuid.New()}} {
		var batch outbox.Batch
		for _, id := range ids {
			require.NoError(t, statements.Insert(t.Context(), dbgen.New(&batch), id, time.Now()))
		}
		require.Zero(t, count(), "nothing may be sent before Send")
		if len(ids) == 2 {
			require.ErrorContains(t, batch.Send(t.Context(), db.Pool), "cars_pkey")
			require.Zero(t, count(), "the first must go with the second")
			continue
		}
		require.NoError(t, batch.Send(t.Context(), db.Pool))
		require.Equal(t, 1, count())
	}
}
