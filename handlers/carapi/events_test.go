package carapi_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

// TestEventMatchesGoldenFile keeps the contract with the subscribers. A golden file may gain a
// member and may not change in any other way.
func TestEventMatchesGoldenFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, `{"make":"Citroën","model":"2CV <AZ> & more","year":1949}`)
	require.Equal(t, 200, b.do(t, "PATCH", path, `{"color":"bleu glacier"}`).Code)
	require.Equal(t, 204, b.do(t, "DELETE", path, "").Code)
	events := b.events(t)
	require.Len(t, events, 3)
	for i, eventType := range []string{"CarCreated", "CarUpdated", "CarDeleted"} {
		event := events[i]
		require.Equal(t, eventType, event.EventType)
		require.Equal(t, "Car", event.AggregateType)
		require.Equal(t, "/cars/"+event.AggregateID, path)
		require.EqualValues(t, i+1, event.AggregateVersion)
		require.EqualValues(t, 7, event.ID.Version())
		require.NotNil(t, event.Traceparent)

		data := strings.ReplaceAll(string(event.EventData), event.AggregateID, "01234567-89ab-7cde-8f01-23456789abcd")
		want, err := os.ReadFile(filepath.Join("testdata", eventType+".json"))
		require.NoError(t, err)
		require.JSONEq(t, string(want), data)
	}
}

func TestEveryEventHasATraceparent(t *testing.T) {
	t.Parallel()
	const xray = "Root=1-67891233-abcdef012345678912345678"
	for name, test := range map[string]struct {
		header, amazon string
		want           string // pattern
	}{
		"TheClients":     {trace, xray, "^" + trace + "$"},
		"New":            {"", "", "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$"},
		"XRays":          {"", xray + ";Parent=53995c3f42cd8ad8;Sampled=1", "^00-67891233abcdef012345678912345678-53995c3f42cd8ad8-01$"},
		"XRaysUnsampled": {"", xray + ";Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:abc:0", "^00-67891233abcdef012345678912345678-53995c3f42cd8ad8-00$"},
		"XRaysRootOnly":  {"", "Self=1-1-1; " + xray, "^00-67891233abcdef012345678912345678-[0-9a-f]{16}-00$"},
		"XRaysBroken":    {"", "Root=1-0-0;Parent=53995c3f42cd8ad8", "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$"},
		"XRaysZero":      {"", "Root=1-00000000-000000000000000000000000", "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$"},
		"Garbage":        {"'; DROP TABLE outbox; --", "", "-00$"},
		"ZeroTrace":      {"00-00000000000000000000000000000000-b7ad6b7169203331-01", "", "-00$"},
		"UpperCase":      {strings.ToUpper(trace), "", "-00$"},
		"OtherVersion":   {"ff" + trace[2:], xray, "^00-67891233abcdef012345678912345678-"},
		"TooLong":        {trace + "-x", "", "-00$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			headers := []string{"Traceparent", test.header, "X-Amzn-Trace-Id", test.amazon}
			w := b.do(t, "POST", "/cars", bmw, headers...)
			require.Equal(t, 201, w.Code)
			changed := b.do(t, "PATCH", w.Header().Get("Location"), `{"year":2023}`, headers...)
			require.Equal(t, 200, changed.Code)
			events, lines := b.events(t), b.logs.lines(t)
			for i, answer := range []*httptest.ResponseRecorder{w, changed} {
				traceparent := *events[i].Traceparent
				require.True(t, outbox.ValidTraceparent(traceparent))
				require.Regexp(t, test.want, traceparent)
				require.Equal(t, traceparent, answer.Header().Get("Traceresponse"))
				require.Equal(t, traceparent[3:35], lines[i]["trace_id"])
			}
			if test.want == "-00$" || name == "New" {
				require.NotEqual(t, events[0].Traceparent, events[1].Traceparent)
			}
		})
	}
}
