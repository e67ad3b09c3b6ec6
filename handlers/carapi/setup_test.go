package carapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgtest"
)

// clock is every test's time. PostgreSQL would round its nanoseconds away, and an answer must not show
// its zone.
var clock = time.Date(2026, 11, 23, 6, 7, 8, 123456789, time.FixedZone("CET", 3600))

// pgx returns times in the machine's zone. Here that is never UTC, so that an answer which forgets to convert is seen.
func init() { time.Local = clock.Location() }

const (
	clockJSON = "2026-11-23T05:07:08.123456Z"
	bmw       = `{"make":"BMW","model":"i3","year":2022,"color":"blue"}`
	trace     = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

type bundle struct {
	*pgtest.DB // its pool is a superuser's
	handler    http.Handler
	logs       *logBuffer
}

func setup(t testing.TB) bundle {
	t.Helper()
	db := pgtest.New(t)
	b := bundle{DB: db, logs: &logBuffer{}}
	b.handler = newAPI(t, b.pool(t, nil), b.logs)
	return b
}

// pool returns a pool of the role outbox_api, so that every test shows that the role's rights suffice.
// The tracer may be nil.
func (b bundle) pool(t testing.TB, tracer pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(b.URL)
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["role"] = "outbox_api"
	config.ConnConfig.Tracer = tracer
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func newAPI(t testing.TB, pool carapi.Pool, logs io.Writer) http.Handler {
	t.Helper()
	handler, err := carapi.New(carapi.Config{
		Pool: pool, Logger: slog.New(slog.NewJSONHandler(logs, nil)), Now: func() time.Time { return clock },
		Caller: func(r *http.Request) string { return r.Header.Get("X-Caller") }, CORSOrigin: "*",
	})
	require.NoError(t, err)
	return handler
}

// do sends one request and holds it and its answer against openapi.json. headers are pairs of name and value. A body is declared as JSON
// unless they say otherwise.
func do(t testing.TB, handler http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if _, said := r.Header["Content-Type"]; !said {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	requireDescribed(t, r, body, w)
	return w
}

func (b bundle) do(t testing.TB, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return do(t, b.handler, method, path, body, headers...)
}

// create makes a car and returns its path.
func (b bundle) create(t testing.TB, body string) string {
	t.Helper()
	w := b.do(t, "POST", "/cars", body)
	require.Equal(t, 201, w.Code, w.Body)
	return w.Header().Get("Location")
}

func (b bundle) count(t testing.TB, table string) int {
	t.Helper()
	var n int
	// Not t.Context, because a Cleanup calls this, too.
	require.NoError(t, b.Pool.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// expectOneCarAtEnd checks after all parallel subtests that no refused request wrote anything.
func (b bundle) expectOneCarAtEnd(t *testing.T) {
	t.Cleanup(func() {
		// Not require, because its Goexit inside a Cleanup swallows the reports of the subtests.
		if cars, events := b.count(t, "cars"), b.count(t, "outbox"); cars != 1 || events != 1 {
			t.Errorf("%d cars and %d events, want 1 and 1: a refused request wrote", cars, events)
		}
	})
}

func (b bundle) exec(t testing.TB, sql string) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// events returns the outbox, per aggregate in the order of versions.
func (b bundle) events(t testing.TB) []dbgen.Outbox {
	t.Helper()
	events, err := dbgen.New(b.Pool).OutboxPage(t.Context(), dbgen.OutboxPageParams{MaxRows: 1000})
	require.NoError(t, err)
	return events
}

func decode(t testing.TB, data []byte) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(data, &v), "%s", data)
	return v
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Len()
}

// From returns what was logged after the first n bytes.
func (l *logBuffer) From(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes()[n:])
}

// lines returns the log so far, one map a line.
func (l *logBuffer) lines(t testing.TB) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(l.String()) {
		lines = append(lines, decode(t, []byte(line)))
	}
	return lines
}
