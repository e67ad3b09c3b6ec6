//go:build fuzz

package carapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A fuzzing build compiles all that it needs anew, and the validator alone is as much as all the rest. The seeds run with it under
// `make test`.
func requireDescribed(testing.TB, *http.Request, string, *httptest.ResponseRecorder) {}
