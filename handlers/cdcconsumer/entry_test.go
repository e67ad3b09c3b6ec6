package cdcconsumer

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

func TestEntry(t *testing.T) {
	t.Parallel()

	// The golden file is the entry on the wire, for the record of outbox's golden file.
	t.Run("IsTheContract", func(t *testing.T) {
		stream, err := os.ReadFile("../../outbox/testdata/insert.json")
		require.NoError(t, err)
		want, err := os.ReadFile("testdata/entry.json")
		require.NoError(t, err)
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			require.Equal(t, -1, b.handle(t, time.Minute, batch(stream)))
			var wire struct{ Entries []json.RawMessage }
			require.NoError(t, json.Unmarshal(b.rawPut, &wire))
			require.Len(t, wire.Entries, 1)
			require.JSONEq(t, string(want), string(wire.Entries[0]))
		})
	})

	detailOf := func(t *testing.T, change func(*outbox.Record)) (string, *string) {
		t.Helper()
		r := outbox.Record{Row: row("a", 1), Operation: outbox.OperationInsert}
		change(&r)
		line, err := r.AppendJSON(nil)
		require.NoError(t, err)
		parsed, _, err := outbox.ParseRecord(line)
		require.NoError(t, err)
		entry, err := newEntry("bus", parsed)
		require.NoError(t, err)
		return *entry.Detail, entry.TraceHeader
	}

	t.Run("KeepsThePayload", func(t *testing.T) {
		t.Parallel()
		payload := `{"html":"<a href=\"x\">&</a>","int":9223372036854775807,"float":1.10,"tiny":1e-7,"line":"` + "\u2028" + `"}`
		got, _ := detailOf(t, func(r *outbox.Record) { r.Row.EventData = json.RawMessage(payload) })
		require.Contains(t, got, `"eventData":`+payload+`,`)
	})

	t.Run("IsTheSameForEveryDelivery", func(t *testing.T) {
		t.Parallel()
		load, _ := detailOf(t, func(r *outbox.Record) { r.Operation = outbox.OperationLoad })
		insert, _ := detailOf(t, func(r *outbox.Record) { r.Timestamp, r.Commit.Time = time.Now(), time.Now() })
		require.Equal(t, load, insert)
	})

	t.Run("MarksAReplayInItsResourcesAlone", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			replayed := outbox.Record{Row: row("b", 1), Operation: outbox.OperationLoad, Replay: "repair-1"}
			line, err := replayed.AppendJSON(nil)
			require.NoError(t, err)
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("b", 1), line)))
			first, again := b.calls[0][0], b.calls[1][0]
			require.Empty(t, first.Resources)
			require.Equal(t, []string{"replay/repair-1"}, again.Resources)
			again.Resources = nil
			require.Equal(t, first, again)
		})
	})

	t.Run("CountsResources", func(t *testing.T) {
		t.Parallel()
		r := outbox.Record{Row: row("a", 1), Operation: outbox.OperationLoad}
		plain, err := newEntry("bus", r)
		require.NoError(t, err)
		r.Replay = "repair-1"
		marked, err := newEntry("bus", r)
		require.NoError(t, err)
		require.Equal(t, entrySize(plain)+len("replay/repair-1"), entrySize(marked))
	})

	t.Run("WritesWholeSecondsWithoutFraction", func(t *testing.T) {
		t.Parallel()
		got, _ := detailOf(t, func(r *outbox.Record) { r.Row.CreatedAt = r.Row.CreatedAt.Truncate(time.Second) })
		require.Contains(t, got, `"timestamp":"2026-11-23T09:15:00Z"`)
	})

	for name, test := range map[string]struct{ traceparent, header string }{
		"TracesWhatIsSampled": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			"Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1"},
		"TracesWhatIsNotSampled": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
			"Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=0"},
		"TracesWhatHasOtherFlags": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
			"Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1"},
		"ReadsTheSampledBitAlone": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe",
			"Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=0"},
		"LeavesOutABadTraceparent": {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", ""},
		"LeavesOutAZeroTrace":      {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, header := detailOf(t, func(r *outbox.Record) { r.Row.Traceparent = &test.traceparent })
			if test.header == "" {
				require.Nil(t, header)
				require.NotContains(t, got, "traceparent")
				return
			}
			require.Equal(t, test.header, *header)
			require.Contains(t, got, `,"traceparent":"`+test.traceparent+`"}`)
		})
	}
}
