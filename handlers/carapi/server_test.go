package carapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/lab/labtest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := carapi.NewServer(b.handler)
	require.NotZero(t, server.ReadHeaderTimeout)
	require.NotZero(t, server.ReadTimeout)
	require.NotZero(t, server.WriteTimeout)
	require.NotZero(t, server.IdleTimeout)
	// Here the client is a test, which may have no turn between its connection and its header.
	server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout = labtest.Patience, labtest.Patience, labtest.Patience
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	url := "http://" + listener.Addr().String()
	send := func(t *testing.T, body io.Reader, header string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+"/cars", body)
		require.NoError(t, err)
		r.Header.Set("X-Padding", header)
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}

	t.Run("Created", func(t *testing.T) {
		require.Equal(t, 201, send(t, strings.NewReader(bmw), ""))
	})
	t.Run("ChunkedBodyTooLarge", func(t *testing.T) {
		// Without a Content-Length, the API meets the limit while it reads.
		endless := io.MultiReader(strings.NewReader(bmw), strings.NewReader(strings.Repeat(" ", 2<<20)))
		require.Equal(t, 413, send(t, endless, ""))
	})
	t.Run("LengthTooLarge", func(t *testing.T) {
		conn, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		// No body follows. Without the check of the length the answer would come at ReadTimeout, as 400.
		_, err = io.WriteString(conn, "POST /cars HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 413, resp.StatusCode)
	})
	t.Run("HeaderTooLarge", func(t *testing.T) {
		require.Equal(t, 431, send(t, strings.NewReader(bmw), strings.Repeat("x", 32<<10)))
	})
	require.Equal(t, 1, b.count(t, "cars"))
}

// A slow loris opens many connections, and each sends a header that never ends. The server cuts each
// off after ReadHeaderTimeout, and meanwhile serves other clients.
func TestEndlessHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := carapi.NewServer(b.handler)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	var slow []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = io.WriteString(conn, "POST /cars HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	labtest.Eventually(t, "an answer to another client", func() bool { // whose own header may be too slow, too
		status, _, err := post(t.Context(), "http://"+listener.Addr().String()+"/cars")
		return err == nil && status == 201
	})
	for _, conn := range slow {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(server.ReadHeaderTimeout+labtest.Patience)))
		_, err := io.Copy(io.Discard, conn)
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "still open")
	}
	require.Equal(t, 1, b.count(t, "cars"))
}

// deadlines is a pool that notes when the work of each request has to end.
type deadlines struct {
	carapi.Pool
	seen []time.Time
}

func (d *deadlines) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	deadline, _ := ctx.Deadline()
	d.seen = append(d.seen, deadline)
	return d.Pool.Acquire(ctx)
}

func TestTheWorkEndsBeforeTheDeadlineOfTheRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := &deadlines{Pool: b.pool(t, nil)}
	handler := newAPI(t, pool, b.logs)
	path := b.create(t, bmw)
	requests := []struct{ method, path, body string }{
		{"POST", "/cars", bmw}, {"GET", "/cars", ""}, {"GET", path, ""}, {"PATCH", path, `{"year":2023}`}, {"DELETE", path, ""},
	}
	var ends []time.Time // of the requests. Each has a context of its own. With one for all, the last could be too late.
	send := func(newContext func() (context.Context, context.CancelFunc)) {
		pool.seen, ends = nil, nil
		for _, r := range requests {
			ctx, cancel := newContext()
			t.Cleanup(cancel)
			end, _ := ctx.Deadline()
			ends = append(ends, end)
			request := httptest.NewRequestWithContext(ctx, r.method, r.path, strings.NewReader(r.body))
			request.Header.Set("Content-Type", "application/json")
			handler.ServeHTTP(httptest.NewRecorder(), request)
		}
		require.Len(t, pool.seen, len(requests))
	}

	t.Run("Second", func(t *testing.T) {
		send(func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Hour) })
		for i, seen := range pool.seen {
			require.Equal(t, time.Second, ends[i].Sub(seen))
		}
	})
	t.Run("HalfOfAShortTime", func(t *testing.T) {
		send(func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) })
		for i, seen := range pool.seen {
			require.LessOrEqual(t, ends[i].Sub(seen), 500*time.Millisecond)
		}
	})
	t.Run("WithoutADeadlineBeforeTheServerGivesUp", func(t *testing.T) {
		began := time.Now()
		send(func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) })
		for _, seen := range pool.seen {
			require.False(t, seen.IsZero())
			require.Less(t, time.Until(seen), carapi.NewServer(handler).WriteTimeout)
			require.Greater(t, seen.Sub(began), 30*time.Second)
		}
	})
}

// Another session holds the row. The statement limit of the database is longer than the time that is
// left for the request.
func TestARequestThatRunsOutOfTimeIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	lock, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Rollback(context.Background()) })
	_, err = lock.Exec(t.Context(), "SELECT FROM cars FOR UPDATE")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, "PATCH", path, strings.NewReader(`{"year":2023}`))
	r.Header.Set("Content-Type", "application/json")
	b.handler.ServeHTTP(w, r)
	require.Equal(t, 500, w.Code)
	lines := b.logs.lines(t)
	require.EqualValues(t, 500, lines[len(lines)-1]["status"])
	require.Contains(t, lines[len(lines)-1]["error"], "context deadline exceeded")
	require.NoError(t, lock.Rollback(t.Context()))
	require.Len(t, b.events(t), 1)
}
