package carapi_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

var discard = slog.New(slog.DiscardHandler)

// brokenPool fails or, without an error, panics.
type brokenPool struct{ err error }

func (p brokenPool) Acquire(context.Context) (*pgxpool.Conn, error) {
	if p.err == nil {
		panic("out of luck on 10.1.2.3")
	}
	return nil, p.err
}

func TestOneLogLinePerRequest(t *testing.T) {
	t.Parallel()
	const secretText = "Trabant" // in every body, in no log line
	body := `{"make":"` + secretText + `","model":"601","year":1964}`
	type line = map[string]any
	for name, test := range map[string]struct {
		method, path, body string
		trace              string
		want               line
		event              bool
	}{
		"Create":          {"POST", "/cars", body, trace, line{"method": "POST", "route": "POST /cars", "status": 201.0}, true},
		"NoTrace":         {"POST", "/cars", body, "", line{"method": "POST", "route": "POST /cars", "status": 201.0}, true},
		"InvalidTrace":    {"POST", "/cars", body, "00-" + secretText, line{"method": "POST", "route": "POST /cars", "status": 201.0}, true},
		"Refused":         {"POST", "/cars", `{"make":"` + secretText + `"}`, trace, line{"method": "POST", "route": "POST /cars", "status": 400.0}, false},
		"BadJSON":         {"POST", "/cars", secretText, "", line{"method": "POST", "route": "POST /cars", "status": 400.0}, false},
		"PathIsNotLogged": {"GET", "/cars/" + secretText, "", "", line{"method": "GET", "route": "GET /cars/{id}", "status": 404.0}, false},
		"NoRoute":         {"GET", "/" + secretText, "", "", line{"method": "GET", "route": "/", "status": 404.0}, false},
		"OtherMethod":     {"PUT", "/cars", body, "", line{"method": "PUT", "route": "/cars", "status": 405.0}, false},
		"Health":          {"GET", "/healthz", "", "", line{"method": "GET", "route": "GET /healthz", "status": 200.0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.do(t, test.method, test.path, test.body, "Traceparent", test.trace)
			require.NotContains(t, b.logs.String(), secretText)
			lines := b.logs.lines(t)
			require.Len(t, lines, 1)
			got := lines[0]
			if test.event {
				require.Equal(t, b.events(t)[0].ID.String(), got["event_id"])
				delete(got, "event_id")
			}
			if test.trace == trace {
				require.Equal(t, trace[3:35], got["trace_id"])
			}
			require.Len(t, got["trace_id"], 32)
			delete(got, "trace_id")
			require.IsType(t, 0.0, got["duration_ms"])
			delete(got, "duration_ms")
			delete(got, "time")
			test.want["hop"], test.want["level"], test.want["msg"] = 1.0, "INFO", "request"
			require.Equal(t, test.want, got)
		})
	}
}

func TestUnexpectedErrorsStayInTheLog(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pool   brokenPool
		logged string
	}{
		"Error": {brokenPool{errors.New("no route to 10.1.2.3")}, "connecting to the database: no route to 10.1.2.3"},
		"Panic": {brokenPool{}, "panic: out of luck on 10.1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := &logBuffer{}
			w := do(t, newAPI(t, test.pool, logs), "POST", "/cars", bmw)
			require.Equal(t, 500, w.Code)
			require.JSONEq(t, `{"error":"internal error"}`, w.Body.String())
			require.Len(t, logs.lines(t), 1)
			line := logs.lines(t)[0]
			require.Equal(t, "ERROR", line["level"])
			require.Contains(t, line["error"], test.logged)
			require.NotContains(t, line, "event_id")
			if name == "Panic" {
				require.Contains(t, line["error"], "log_test.go", "the stack")
			}
		})
	}
}

// ServeMux would answer these with a redirect of its own.
func TestPathsThatAreNotCleanAreAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"//cars", "/x/../cars", "/cars/.", "/cars//1", "/./healthz", "/cars/%2e%2e/cars"} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			before := len(b.logs.lines(t))
			w := b.do(t, method, path, bmw)
			require.Equal(t, 404, w.Code, "%s %s", method, path)
			require.JSONEq(t, `{"error":"not found"}`, w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
			lines := b.logs.lines(t)
			require.Len(t, lines, before+1)
			require.EqualValues(t, 404, lines[before]["status"])
			require.Equal(t, "/", lines[before]["route"])
		}
	}
	require.Zero(t, b.count(t, "cars"))
}
