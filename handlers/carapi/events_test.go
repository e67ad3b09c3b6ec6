package carapi_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEventMatchesGoldenFile keeps the contract with the subscribers: a golden file may gain a member, nothing else.
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
		require.Nil(t, event.Traceparent)

		var got bytes.Buffer
		data := strings.ReplaceAll(string(event.EventData), event.AggregateID, "01234567-89ab-7cde-8f01-23456789abcd")
		require.NoError(t, json.Indent(&got, []byte(data), "", "  "))
		want, err := os.ReadFile(filepath.Join("testdata", eventType+".json"))
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(want)), got.String())
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header string
		valid  bool
	}{
		"Valid":        {trace, true},
		"Absent":       {"", false},
		"Garbage":      {"'; DROP TABLE outbox; --", false},
		"ZeroTrace":    {"00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		"UpperCase":    {strings.ToUpper(trace), false},
		"OtherVersion": {"ff" + trace[2:], false},
		"TooLong":      {trace + "-x", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			w := b.do(t, "POST", "/cars", bmw, "Traceparent", test.header)
			require.Equal(t, 201, w.Code)
			require.Equal(t, 200, b.do(t, "PATCH", w.Header().Get("Location"), `{"year":2023}`, "Traceparent", test.header).Code)
			for _, event := range b.events(t) {
				if !test.valid {
					require.Nil(t, event.Traceparent)
					continue
				}
				require.Equal(t, test.header, *event.Traceparent)
			}
		})
	}
}
