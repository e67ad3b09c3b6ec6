//go:build !fuzz

package carapi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/errors"
	"github.com/stretchr/testify/require"
)

// description is openapi.json. Requests are checked against it as it is, answers are checked strictly.
// A client may send unknown members, but openapi.json has every member of our answers.
type description struct{ requests, answers validator.Validator }

var readDescription = sync.OnceValues(func() (d description, err error) {
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		return d, err
	}
	document, err := libopenapi.NewDocument(data)
	if err != nil {
		return d, err
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return d, err
	}
	d.requests = validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions())
	d.requests.SetDocument(document)
	d.answers = validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions(), config.WithStrictMode(),
		config.WithStrictIgnorePaths("$.body.fields.*", // any name. The other paths are the document itself.
			"$.body.openapi", "$.body.info", "$.body.servers", "$.body.paths", "$.body.components"),
		config.WithStrictIgnoredHeadersExtra("Access-Control-Allow-Origin", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
			"Access-Control-Expose-Headers"))
	return d, nil
})

// requireDescribed requires that openapi.json describes the answer for the request, and that no request
// succeeds which openapi.json calls wrong.
func requireDescribed(t testing.TB, sent *http.Request, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	if sent.Method == http.MethodHead || path.Clean(sent.URL.Path) != sent.URL.Path {
		return // net/http makes HEAD of GET, and the validator takes /cars/ and //cars for /cars
	}
	d, err := readDescription()
	require.NoError(t, err)
	r := sent.Clone(t.Context())
	r.Body = io.NopCloser(strings.NewReader(body))
	valid, problems := d.requests.ValidateHttpRequestSync(r)
	if !described(problems) {
		if r.Method != http.MethodOptions {
			require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, w.Code, "%s %s is not described", r.Method, r.URL)
		}
		return
	}
	if w.Code < http.StatusBadRequest {
		require.True(t, valid, "%s %s %.200s was answered %d and is wrong: %s", r.Method, r.URL, body, w.Code, texts(problems))
	}
	valid, problems = d.answers.ValidateHttpResponse(r, w.Result())
	require.True(t, valid, "%s %s: %d %v %.500s is not described: %s", r.Method, r.URL, w.Code, w.Header(), w.Body, texts(problems))
}

func described(problems []*errors.ValidationError) bool {
	for _, problem := range problems {
		if problem.IsPathMissingError() || problem.IsOperationMissingError() {
			return false
		}
	}
	return true
}

func texts(problems []*errors.ValidationError) string {
	var all []string
	for _, problem := range problems {
		all = append(all, problem.Message+": "+problem.Reason)
		for _, detail := range problem.SchemaValidationErrors {
			all = append(all, detail.Reason)
		}
	}
	return strings.Join(all, "; ")
}

func TestOpenAPIDocumentIsValidAndServed(t *testing.T) {
	t.Parallel()
	d, err := readDescription()
	require.NoError(t, err)
	valid, problems := d.requests.ValidateDocument()
	require.True(t, valid, texts(problems))

	file, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	w := do(t, newAPI(t, brokenPool{io.EOF}, io.Discard), "GET", "/openapi.json", "")
	require.Equal(t, 200, w.Code)
	require.JSONEq(t, string(file), w.Body.String())
	require.Equal(t, "3.1.0", decode(t, w.Body.Bytes())["openapi"])
}
