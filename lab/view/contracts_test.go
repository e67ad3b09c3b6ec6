package view

import (
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/contracts"
	"rds-outbox-demo/lab/domain"
)

func TestContractsPage(t *testing.T) {
	t.Parallel()
	v := newRig(t, t.TempDir())
	got := v.ask(t, "GET", "/contracts", "")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Equal(t, "text/html; charset=utf-8", got.header.Get("Content-Type"))
	require.Equal(t, policy, got.header.Get("Content-Security-Policy"))
	for _, want := range []string{
		"<code>POST /cars</code>", "<code>DELETE /cars/{id}</code>", "<code>rds-outbox-demo-{stage}-outbox</code>", `<h3 id="event-CarDeleted">CarDeleted</h3>`,
		`<tr><th scope="row"><code>` + domain.Fields[3].Name + `</code></th><td>string or null</td>`, `<td>date-time</td><td>When it was deleted.</td>`, "Citroën",
	} {
		require.Contains(t, got.body, want)
	}
	require.NotContains(t, got.body, v.token, "the page sends no commands")
	for _, asset := range regexp.MustCompile(`(?:src|<link[^>]* href)="([^"]*)"`).FindAllStringSubmatch(got.body, -1) {
		require.Equal(t, http.StatusOK, v.ask(t, "GET", asset[1], "").status, "%s is not the server's own", asset[1])
	}
	require.Equal(t, http.StatusNotFound, v.ask(t, "GET", "/page/contracts.html", "").status, "it is a template")

	served, err := http.Get(v.path.APIURL + "/asyncapi.yaml")
	require.NoError(t, err)
	defer served.Body.Close()
	require.Equal(t, "application/yaml", served.Header.Get("Content-Type"))
	text, err := io.ReadAll(served.Body)
	require.NoError(t, err)
	require.Equal(t, string(contracts.AsyncAPI), string(text))
}
