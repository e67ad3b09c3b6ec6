package carapi_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"rds-outbox-demo/handlers/carapi"
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
	for name, value := range map[string]func() string{
		"NoKey":       func() string { return "" },
		"NewKey":      func() string { n++; return strconv.Itoa(n) },
		"AnsweredKey": func() string { return "0" },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			send(b, "0") // connects, prepares, and answers key 0
			for b.Loop() {
				send(b, value())
			}
		})
	}
}
