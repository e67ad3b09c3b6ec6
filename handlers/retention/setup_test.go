package retention_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/postgres/postgrestest"
)

// rig is a database with a slot that nobody reads. The tests move it.
type rig struct {
	url  string
	pool *pgxpool.Pool // of a superuser
	slot string
	conn *pgx.Conn // of the role outbox_retention, so every test shows that its rights suffice
	hook hook
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := pgtest.New(t)
	return start(t, db.URL, db.Pool)
}

func start(t *testing.T, url string, pool *pgxpool.Pool) *rig {
	t.Helper()
	r := &rig{url: url, pool: pool, slot: "retention_" + strings.ToLower(rand.Text()[:10])}
	r.makeSlot(t)
	r.conn = r.connect(t)
	return r
}

// newServer is a rig on a server of its own, for what concerns the whole server.
func newServer(t *testing.T, settings map[string]string) *rig {
	t.Helper()
	server, _ := postgrestest.Start(t, settings)
	db := postgrestest.Migrate(t, server)
	return start(t, db.URL, db.Pool)
}

func (r *rig) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(r.url)
	require.NoError(t, err)
	config.RuntimeParams["role"] = "outbox_retention"
	config.Tracer = &r.hook
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// hook sees the statements of the purge.
type hook struct {
	before func(query string)
	after  func(query string, rows int64)
}

type queryKey struct{}

func (h *hook) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	query := strings.TrimPrefix(data.SQL, "-- name: ")
	query, _, _ = strings.Cut(query, " ")
	if h.before != nil {
		h.before(query)
	}
	return context.WithValue(ctx, queryKey{}, query)
}

func (h *hook) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if h.after != nil {
		h.after(ctx.Value(queryKey{}).(string), data.CommandTag.RowsAffected())
	}
}

func (r *rig) purger(t *testing.T, change func(*retention.Config)) *retention.Purger {
	t.Helper()
	config := retention.Config{Slot: r.slot, Days: 14, StreamRetention: 168 * time.Hour, Wait: labtest.Patience}
	if change != nil {
		change(&config)
	}
	purger, err := retention.New(config)
	require.NoError(t, err)
	return purger
}

// short is for a purge that waits in vain.
func short(c *retention.Config) { c.Wait = 500 * time.Millisecond }

func (r *rig) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := r.pool.Exec(context.WithoutCancel(t.Context()), sql, args...)
	require.NoError(t, err)
}

// ask returns one value as text.
func (r *rig) ask(t *testing.T, sql string, args ...any) (answer string) {
	t.Helper()
	require.NoError(t, r.pool.QueryRow(t.Context(), sql, args...).Scan(&answer))
	return answer
}

func (r *rig) makeSlot(t *testing.T) {
	t.Helper()
	r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
}

func (r *rig) dropSlot(t *testing.T) {
	t.Helper()
	r.exec(t, "SELECT pg_drop_replication_slot($1)", r.slot)
}

const insert = `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
	SELECT gen_random_uuid(), 'Car', $1, n, 'CarUpdated', '{}', now() - make_interval(days => $3) FROM generate_series(1, $2::int) AS n`

// rows writes n events of one aggregate that are so many days old.
func (r *rig) rows(t *testing.T, aggregate string, n, days int) {
	t.Helper()
	r.exec(t, insert, aggregate, n, days)
}

// kept tells of which aggregates there are rows, and how many.
func (r *rig) kept(t *testing.T) string {
	t.Helper()
	return r.ask(t, `SELECT coalesce(string_agg(aggregate_id || ' ' || n, ', ' ORDER BY aggregate_id), '')
		FROM (SELECT aggregate_id, count(*) AS n FROM outbox GROUP BY 1) AS rows`)
}

// insertLSN is the end of the WAL.
func (r *rig) insertLSN(t *testing.T) string {
	t.Helper()
	return r.ask(t, "SELECT pg_current_wal_insert_lsn()::text")
}

// advance moves the slot to a position, and no further.
func (r *rig) advance(t *testing.T, lsn string) {
	t.Helper()
	// A slot moves over flushed WAL only. This commit flushes the WAL before it.
	r.exec(t, "SELECT pg_logical_emit_message(true, 'flush', '')")
	r.exec(t, "SELECT pg_replication_slot_advance($1, $2::pg_lsn)", r.slot, lsn)
	require.Equal(t, "true", r.ask(t, "SELECT (confirmed_flush_lsn >= $2::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $1", r.slot, lsn))
}

// follow moves the slot on as a relay would that has no other work, until the test ends.
func (r *rig) follow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, err := r.pool.Exec(ctx, `SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots
				WHERE slot_name = $1 AND confirmed_flush_lsn < pg_current_wal_flush_lsn()`, r.slot)
			if err != nil && ctx.Err() == nil {
				t.Errorf("moving the slot: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}
