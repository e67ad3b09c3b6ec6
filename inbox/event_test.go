package inbox_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/inbox"
)

func envelope(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/envelope.json")
	require.NoError(t, err)
	return string(data)
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	e, err := inbox.ParseEvent([]byte(envelope(t)))
	require.NoError(t, err)
	require.Equal(t, inbox.Event{
		ID:            uuid.MustParse("0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f13"),
		AggregateType: "Car", AggregateID: "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12",
		Version:     9007199254740993, // a float64 would have lost the 3
		Type:        "CarCreated",
		Data:        json.RawMessage(`{"carId": "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12", "make": "Škoda", "n": 9007199254740993}`),
		Timestamp:   time.Date(2026, 11, 23, 9, 15, 0, 1000, time.UTC),
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Replay:      "2026-11-23.1",
	}, e)

	for name, edit := range map[string][2]string{
		"NoReplay":          {`, "replay/2026-11-23.1"`, ``},
		"ReplayWithoutID":   {`replay/2026-11-23.1`, `replay/`},
		"ResourcesAreNull":  {`["arn:aws:something", "replay/2026-11-23.1"]`, `null`},
		"ResourcesAreThere": {`"resources"`, `"other"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, envelope(t), edit[0])
			e, err := inbox.ParseEvent([]byte(strings.Replace(envelope(t), edit[0], edit[1], 1)))
			require.NoError(t, err)
			require.Empty(t, e.Replay)
		})
	}
}

func TestWhatIsNoEventIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ old, replacement, message string }{
		"NotUTF8":            {"Škoda", "\xff", "not valid UTF-8"},
		"Cut":                {"\n  }\n}\n", "", "not an EventBridge event"},
		"NoDetail":           {`"detail":`, `"other":`, "it has no detail"},
		"DetailIsText":       {`"detail":`, `"detail": "x", "other":`, "it has no detail"},
		"OtherSource":        {`"outbox.car"`, `"aws.ec2"`, `source "aws.ec2" is not that of aggregateType "Car"`},
		"NoDetailType":       {`"detail-type"`, `"other"`, "detail-type is missing"},
		"NoEventID":          {`"eventId"`, `"other"`, "eventId is missing"},
		"EventIDIsNoUUID":    {`"eventId": "0199`, `"eventId": "x199`, "reading the detail"},
		"NoAggregateID":      {`"aggregateId"`, `"other"`, "aggregateId is missing"},
		"NoAggregateType":    {`"aggregateType"`, `"other"`, "aggregateType or"},
		"NoVersion":          {`"aggregateVersion"`, `"other"`, "aggregateVersion is 0"},
		"VersionIsFraction":  {`9007199254740993,`, `1.5,`, "reading the detail"},
		"VersionIsNegative":  {`9007199254740993,`, `-1,`, "aggregateVersion is -1"},
		"NoEventData":        {`"eventData"`, `"other"`, "eventData is not a JSON object"},
		"EventDataIsText":    {`"eventData":`, `"eventData": "{}", "other":`, "eventData is not a JSON object"},
		"NoTimestamp":        {`"timestamp"`, `"other"`, "timestamp is missing"},
		"TimestampIsNoTime":  {`"2026-11-23T09:15:00.000001Z"`, `"yesterday"`, "reading the detail"},
		"TraceparentNoText":  {`"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`, `1`, "reading the detail"},
		"SourceOfSimilar":    {`"outbox.car"`, `"outbox.cargo"`, `is not that of aggregateType "Car"`},
		"SourceInUpperCase":  {`"outbox.car"`, `"outbox.Car"`, `is not that of aggregateType "Car"`},
		"ArrayInsteadOfThis": {"{\n  \"version\": \"0\",", "[{", "not an EventBridge event"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, envelope(t), test.old)
			_, err := inbox.ParseEvent([]byte(strings.Replace(envelope(t), test.old, test.replacement, 1)))
			require.ErrorContains(t, err, test.message)
		})
	}
}

// Any text is an error, or an event that Once accepts and that is the same when it is read again.
func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(envelope(f)))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"source":"outbox.","detail-type":"x","detail":{"eventId":"` + uuid.NewString() + `"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := inbox.ParseEvent(data)
		if err != nil {
			require.Equal(t, inbox.Event{}, e)
			return
		}
		require.NotEqual(t, uuid.Nil, e.ID)
		require.NotEmpty(t, e.AggregateType)
		require.NotEmpty(t, e.AggregateID)
		require.NotEmpty(t, e.Type)
		require.GreaterOrEqual(t, e.Version, int64(1))
		require.True(t, json.Valid(e.Data))
		require.Equal(t, time.UTC, e.Timestamp.Location())
		again, err := inbox.ParseEvent(data)
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
