package local

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
)

// With DATABASE_URL or a bus on AWS, a page that gets through writes there.
func TestWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := r.APIURL[strings.LastIndexByte(r.APIURL, ':')+1:]
	ask := func(method, path string, headers ...string) (status int, body string, header http.Header) {
		request, err := http.NewRequestWithContext(t.Context(), method, r.APIURL+path, strings.NewReader(domain.Sample(0)))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		if host := request.Header.Get("Host"); host != "" {
			request.Host = host
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(content), response.Header
	}
	link := func(dest string) []string {
		return []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", dest}
	}
	for _, header := range [][]string{
		{"Host", "rebound.example:" + port}, {"Host", "127.0.0.1"}, {"Origin", "http://evil.example"}, {"Origin", "null"},
		{"Origin", "http://127.0.0.1:1"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, link("iframe"),
	} {
		for _, target := range [][2]string{{"POST", "/cars"}, {"OPTIONS", "/cars"}, {"DELETE", "/cars/x"}, {"GET", "/cars"}, {"GET", "/asyncapi.yaml"}} {
			status, body, got := ask(target[0], target[1], header...)
			require.Equal(t, http.StatusForbidden, status, "%v %v", target, header)
			require.Contains(t, body, `{"error":"refused: `)
			require.Empty(t, got.Get("Access-Control-Allow-Origin"))
		}
	}
	status, _, _ := ask("POST", "/cars", link("document")...)
	require.Equal(t, http.StatusForbidden, status, "a form of another page")
	status, _, _ = ask("POST", "/cars", "Content-Type", "text/plain")
	require.Equal(t, http.StatusUnsupportedMediaType, status)
	for _, header := range [][]string{{}, link("document"), {"Host", "localhost:" + port}, {"Origin", r.APIURL}, {"Sec-Fetch-Site", "same-origin"}} {
		status, _, got := ask("GET", "/cars", header...)
		require.Equal(t, http.StatusOK, status, header)
		require.Empty(t, got.Get("Access-Control-Allow-Origin"))
	}
	require.Empty(t, r.arrivals())
}
