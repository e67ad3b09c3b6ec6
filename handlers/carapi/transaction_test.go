package carapi_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
)

const refuseEvents = `
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no events today'; END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()`

func TestCarAndEventAreOneCommit(t *testing.T) {
	t.Parallel()
	t.Run("NoEventNoCar", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.exec(t, refuseEvents)
		w := b.do(t, "POST", "/cars", bmw)
		require.Equal(t, 500, w.Code)
		require.JSONEq(t, `{"error":"internal error"}`, w.Body.String())
		require.Zero(t, b.count(t, "cars"))
		require.Zero(t, b.count(t, "outbox"))
	})
	t.Run("NoEventNoChange", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		path := b.create(t, bmw)
		before := b.do(t, "GET", path, "").Body.String()
		b.exec(t, refuseEvents)
		require.Equal(t, 500, b.do(t, "PATCH", path, `{"year":2023}`).Code)
		require.Equal(t, before, b.do(t, "GET", path, "").Body.String())
		b.exec(t, "DROP TRIGGER refuse ON outbox")
		require.Equal(t, 200, b.do(t, "PATCH", path, `{"year":2023}`).Code)
		require.EqualValues(t, 2, b.events(t)[1].AggregateVersion, "the failed change took no version")
	})
	t.Run("NoCarNoEvent", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.exec(t, "ALTER TABLE cars ADD CONSTRAINT no_bmw CHECK (make <> 'BMW')")
		require.Equal(t, 500, b.do(t, "POST", "/cars", bmw).Code)
		require.Zero(t, b.count(t, "outbox"))
	})
}

// TestConcurrentPatches reads the order of commits from the WAL, where the relay reads it.
func TestConcurrentPatches(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 5
	b := setup(t)
	path := b.create(t, bmw)
	conn, err := pgx.Connect(t.Context(), b.URL)
	require.NoError(t, err)
	slot := fmt.Sprintf("carapi_%d", conn.PgConn().PID())
	_, err = conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)", slot)
	require.NoError(t, err)
	t.Cleanup(func() {
		// Close does not wait for the server to drop the temporary slot, and the database cannot be dropped
		// while it has the slot.
		_, _ = conn.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", slot)
		_ = conn.Close(context.Background())
	})

	var group sync.WaitGroup
	codes := make(chan int, writers*each)
	for writer := range writers {
		group.Go(func() {
			for i := range each {
				body := fmt.Sprintf(`{"color":"%d"}`, i)
				if writer%2 == 0 {
					body = fmt.Sprintf(`{"year":%d}`, 2000+i)
				}
				codes <- b.do(t, "PATCH", path, body).Code
			}
		})
	}
	group.Wait()
	close(codes)
	for code := range codes {
		require.Equal(t, 200, code)
	}

	rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', $2)`, slot, outbox.Publication)
	require.NoError(t, err)
	changes, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	require.NoError(t, err)
	var versions []string
	for _, change := range changes {
		message, err := pglogrepl.Parse(change)
		require.NoError(t, err)
		if insert, ok := message.(*pglogrepl.InsertMessage); ok {
			versions = append(versions, string(insert.Tuple.Columns[3].Data)) // aggregate_version
		}
	}
	var want []string
	for i := range writers * each {
		want = append(want, fmt.Sprint(i+2))
	}
	require.Equal(t, want, versions, "versions in the order of commits")

	car := decode(t, b.do(t, "GET", path, "").Body.Bytes())["car"].(map[string]any)
	require.EqualValues(t, 2000+each-1, car["year"], "no writer undid another's field")
	require.Equal(t, fmt.Sprint(each-1), car["color"])
}

func TestCreateIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t)
	config, err := pgxpool.ParseConfig(b.URL + "&pool_max_conns=1")
	require.NoError(t, err)
	// A pause of the machine must not look like an idle connection that the pool pings first.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	wire := &wire{}
	config.ConnConfig.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &tappedConn{Conn: conn, wire: wire}, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	handler := newAPI(t, pool, b.logs)
	require.Equal(t, 201, do(t, handler, "POST", "/cars", bmw).Code, "prepares the two statements")

	wire.reset()
	require.Equal(t, 201, do(t, handler, "POST", "/cars", bmw).Code)
	flights, messages := wire.seen()
	require.Equal(t, 1, flights)
	// Bind, Describe and Execute of each statement, and one Sync, are one implicit transaction.
	require.Equal(t, "BDEBDES", messages)
}

// wire counts the flights. A flight begins when the client sends again after it has listened.
type wire struct {
	mu       sync.Mutex
	flights  int
	messages strings.Builder // the type of each message of the client
	sending  bool
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flights, w.sending = 0, false
	w.messages.Reset()
}

func (w *wire) seen() (flights int, messages string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flights, w.messages.String()
}

type tappedConn struct {
	net.Conn
	wire    *wire
	started bool
}

func (c *tappedConn) Write(p []byte) (int, error) {
	c.wire.mu.Lock()
	if !c.wire.sending {
		c.wire.flights++
		c.wire.sending = true
	}
	// The messages are whole. Each is a type and a length that includes itself. The startup message has
	// no type.
	for rest := p; c.started && len(rest) >= 5; rest = rest[min(len(rest), 1+int(binary.BigEndian.Uint32(rest[1:]))):] {
		c.wire.messages.WriteByte(rest[0])
	}
	c.started = true
	c.wire.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *tappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.wire.mu.Lock()
		c.wire.sending = false
		c.wire.mu.Unlock()
	}
	return n, err
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	lock, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Rollback(context.Background()) })
	_, err = lock.Exec(t.Context(), "SELECT FROM cars FOR UPDATE")
	require.NoError(t, err)

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		r, err := http.NewRequestWithContext(ctx, "PATCH", server.URL+path, strings.NewReader(`{"year":2023}`))
		if err == nil {
			r.Header.Set("Content-Type", "application/json")
			_, err = http.DefaultClient.Do(r) //nolint:bodyclose // there is no answer
		}
		_ = err
	}()
	waiting := func() bool {
		return b.count(t, "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 1
	}
	labtest.Eventually(t, "a statement that waits for the lock", waiting)
	leave()
	<-left
	labtest.Eventually(t, "the log line of the abandoned request", func() bool { return strings.Contains(b.logs.String(), `"status":499`) })
	labtest.Eventually(t, "the end of its statement", func() bool { return !waiting() })
	require.NoError(t, lock.Rollback(t.Context()))
	require.Len(t, b.events(t), 1)
	require.NotContains(t, b.logs.String(), `"level":"ERROR"`)
}
