package carapi_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/lab/labtest"
)

// BenchmarkCreate measures POST /cars from the handler to the commit and back, one client at a
// time. It runs without a key, with a new key, and with a key that was answered before.
func BenchmarkCreate(b *testing.B) {
	bundle := setup(b)
	handler, err := carapi.New(carapi.Config{Pool: bundle.pool(b, nil), Logger: discard})
	if err != nil {
		b.Fatal(err)
	}
	send := func(b *testing.B, value string) {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/cars", strings.NewReader(bmw))
		r.Header.Set("Content-Type", "application/json")
		if value != "" {
			r.Header.Set(key, value)
		}
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != http.StatusCreated {
			b.Fatal(w.Code, w.Body)
		}
	}
	n := 0
	for name, kind := range map[string]struct {
		value  func() string
		allocs float64 // with those of the request itself, about 16
	}{
		"NoKey":       {func() string { return "" }, 136},
		"NewKey":      {func() string { n++; return strconv.Itoa(n) }, 238},
		"AnsweredKey": {func() string { return "0" }, 153},
	} {
		b.Run(name, func(b *testing.B) {
			send(b, "0") // connects, prepares, and answers key 0
			defer labtest.AllocsAtMost(b, kind.allocs)()
			for b.Loop() {
				send(b, kind.value())
			}
		})
	}
}
