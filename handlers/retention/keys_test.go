package retention_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/retention"
)

// keys stores n keys that end so many seconds from now.
func (r *rig) keys(t *testing.T, name string, n, seconds int) {
	t.Helper()
	r.exec(t, `INSERT INTO idempotency (route, caller_hash, key, request_hash, status, location, etag, body, expires_at)
		SELECT 'POST /cars', sha256('ann'), $1 || n, sha256('x'), 201, '', '', '', now() + make_interval(secs => $3::int + n * 1e-6)
		FROM generate_series(1, $2::int) AS n`, name, n, seconds)
}

func (r *rig) keptKeys(t *testing.T) string {
	t.Helper()
	return r.ask(t, "SELECT count(*) || ' ' || coalesce(min(rtrim(key, '0123456789')), '') FROM idempotency")
}

func TestKeysThatAreOverGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.dropSlot(t) // which proves nothing about keys
	r.keys(t, "over-", 11_000, -60)
	r.keys(t, "kept-", 3, 3600)
	var batches []int64
	r.hook.after = func(query string, rows int64) { batches = append(batches, rows) }
	deleted, err := retention.PurgeKeys(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 11_000, deleted)
	require.Equal(t, "3 kept-", r.keptKeys(t))
	require.Len(t, batches, 4)
	require.LessOrEqual(t, max(batches[0], batches[1], batches[2]), int64(5001))

	deleted, err = retention.PurgeKeys(t.Context(), r.conn)
	require.NoError(t, err)
	require.Zero(t, deleted)
}

// Keys of one transaction have one time.
func TestKeysOfOneMomentGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.keys(t, "over-", 6000, -60)
	r.exec(t, "UPDATE idempotency SET expires_at = now() - interval '1 minute'")
	deleted, err := retention.PurgeKeys(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 6000, deleted)
}

func TestKeysAreLeftToTheNextRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.keys(t, "over-", 3, -60)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	deleted, err := retention.PurgeKeys(ctx, r.conn)
	require.NoError(t, err)
	require.Zero(t, deleted)
	require.Equal(t, "3 over-", r.keptKeys(t))
}
