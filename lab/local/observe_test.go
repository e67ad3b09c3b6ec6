package local

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMetricIsReadThroughAnyLogger(t *testing.T) {
	t.Parallel()
	suppressed := 0
	o := &Observer{Suppressed: func(n int) { suppressed += n }}
	log := o.watchMetrics(slog.New(slog.DiscardHandler))
	for _, l := range []*slog.Logger{log, log.With("request_id", "1"), log.WithGroup("g")} {
		l.Info("car stats", "duplicates", 2)
		l.Info("another line", "duplicates", 2)
	}
	require.Equal(t, 6, suppressed)
}

func TestRequestThatPanicsIsNoSuccess(t *testing.T) {
	t.Parallel()
	var seen []Request
	o := &Observer{Requested: func(time.Time) {}, Responded: func(r Request) { seen = append(seen, r) }}
	handler := o.watchAPI(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panics" {
			panic("on purpose")
		}
		_, _ = w.Write([]byte("fine"))
	}))
	ask := func(method, path string) {
		defer func() { _ = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody))
	}
	ask(http.MethodPost, "/panics")
	ask(http.MethodPost, "/dealers")
	ask(http.MethodGet, "/cars")
	require.Len(t, seen, 2, "what reads is not told of")
	require.Equal(t, http.StatusInternalServerError, seen[0].Status)
	require.Equal(t, http.StatusOK, seen[1].Status)
	require.Equal(t, "fine", string(seen[1].Answer))
}
