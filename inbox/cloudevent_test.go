package inbox_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/inbox"
)

// The SDK of CloudEvents reads and validates what we write.
func TestCloudEventsSDKAcceptsAnEvent(t *testing.T) {
	t.Parallel()
	envelope, err := os.ReadFile("testdata/envelope.json")
	require.NoError(t, err)
	event, err := inbox.ParseEvent(envelope)
	require.NoError(t, err)
	read := readBySDK(t, envelope)
	require.Equal(t, "1.0", read.SpecVersion())
	require.Equal(t, "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f13", read.ID())
	require.Equal(t, "outbox.car", read.Source())
	require.Equal(t, "CarCreated", read.Type())
	require.Equal(t, "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12", read.Subject())
	require.Equal(t, event.Timestamp, read.Time())
	require.Equal(t, "application/json", read.DataContentType())
	require.JSONEq(t, string(event.Data), string(read.Data()), "numbers stay as they are")
	require.Equal(t, map[string]any{
		"aggregatetype": "Car", "aggregateversion": "9007199254740993", "replay": "2026-11-23.1",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}, read.Extensions())
}

// Whatever the outbox accepts is a valid CloudEvent. Only the SDK, and not the specification, refuses a subject of nothing but white space.
func TestEveryEventIsACloudEvent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z][A-Za-z0-9._-]{0,99}`)
		aggregateType, eventType := name.Draw(t, "aggregate type"), name.Draw(t, "event type")
		id, version := rapid.StringN(1, 254, 254).Draw(t, "aggregate id")+".", rapid.Int64Min(1).Draw(t, "version")
		at := time.UnixMicro(rapid.Int64Range(0, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMicro()).Draw(t, "time")).UTC()
		detail, err := json.Marshal(map[string]any{
			"aggregateId": id, "aggregateType": aggregateType, "aggregateVersion": version, "eventId": uuid.New(),
			"eventData": map[string]any{"text": rapid.String().Draw(t, "text")}, "timestamp": at,
		})
		require.NoError(t, err)
		read := readBySDK(t, fmt.Appendf(nil, `{"detail-type":%q,"source":%q,"detail":%s}`, eventType, "outbox."+strings.ToLower(aggregateType), detail))
		require.Equal(t, []string{eventType, id, strconv.FormatInt(version, 10)},
			[]string{read.Type(), read.Subject(), read.Extensions()["aggregateversion"].(string)})
		require.Equal(t, at, read.Time())
		require.NotContains(t, read.Extensions(), "traceparent")
		require.NotContains(t, read.Extensions(), "replay")
	})
}

func TestParseCloudEventRefusesWhatParseEventRefuses(t *testing.T) {
	t.Parallel()
	_, want := inbox.ParseEvent([]byte(`{}`))
	_, err := inbox.ParseCloudEvent([]byte(`{}`))
	require.Error(t, want)
	require.Equal(t, want, err)
}

func readBySDK(t require.TestingT, envelope []byte) (read cloudevents.Event) {
	event, err := inbox.ParseCloudEvent(envelope)
	require.NoError(t, err)
	structured, err := json.Marshal(event)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(structured, &read))
	require.NoError(t, read.Validate())
	return read
}
