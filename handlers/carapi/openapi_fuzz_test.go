//go:build fuzz

package carapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A fuzzing build compiles all its packages anew, and the validator alone is as much as all the rest.
// Under `make test` the seeds run with the validator.
func requireDescribed(testing.TB, *http.Request, string, *httptest.ResponseRecorder) {}
