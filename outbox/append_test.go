package outbox

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/labtest"
)

// reference is the record by encoding/json.
func reference(t require.TestingT, r Record) string {
	marshal := func(v any) []byte {
		var buf bytes.Buffer
		encoder := json.NewEncoder(&buf)
		encoder.SetEscapeHTML(false)
		require.NoError(t, encoder.Encode(v))
		return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	}
	version, err := json.Marshal(r.Row.AggregateVersion)
	require.NoError(t, err)
	line := struct {
		Data     wireRow      `json:"data"`
		Metadata wireMetadata `json:"metadata"`
	}{
		wireRow{
			ID: r.Row.ID.String(), AggregateType: r.Row.AggregateType, AggregateID: r.Row.AggregateID,
			AggregateVersion: version, EventType: r.Row.EventType, EventData: marshal(string(r.Row.EventData)),
			Traceparent: r.Row.Traceparent, CreatedAt: FormatTime(r.Row.CreatedAt),
		},
		wireMetadata{
			Timestamp: FormatTime(r.Timestamp), RecordType: "data", Operation: r.Operation, PartitionKeyType: "attribute-name",
			PartitionKeyValue: r.Row.AggregateID, SchemaName: "public", TableName: "outbox", TransactionID: r.Commit.TransactionID,
			TransactionRecord: r.Commit.Sequence, StreamPosition: r.Commit.StreamPosition, ReplayID: r.Replay,
		},
	}
	if !r.Commit.Time.IsZero() {
		line.Metadata.CommitTimestamp = FormatTime(r.Commit.Time)
	}
	return string(marshal(line))
}

func TestAppendWritesWhatEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	text := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[a-z"\\\\/<>& \x00-\x1f\x7f]{0,12}`),
		rapid.SampledFrom([]string{"", "\u2028\u2029\u202a", "\xff", "a\xe2\x80", "\xed\xa0\x80", "é€😀\ufffd", strings.Repeat("x", 300) + `"`}),
	)
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(-1e15, 1e17).Draw(t, "µs") * rapid.SampledFrom([]int64{1, 1e6}).Draw(t, "times"))
	})
	rapid.Check(t, func(t *rapid.T) {
		data := text.Draw(t, "data")
		r := Record{
			Row: dbgen.Outbox{
				ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), AggregateType: text.Draw(t, "aggregate_type"),
				AggregateID: text.Draw(t, "aggregate_id"), AggregateVersion: rapid.Int64().Draw(t, "version"),
				EventType: text.Draw(t, "event_type"), EventData: json.RawMessage(strings.ToValidUTF8(data, "?")), CreatedAt: moment.Draw(t, "created_at"),
			},
			Operation: text.Draw(t, "operation"), Timestamp: moment.Draw(t, "timestamp"),
			Commit: Commit{
				TransactionID: rapid.Uint32().Draw(t, "xid"), Sequence: rapid.Int().Draw(t, "sequence"), StreamPosition: text.Draw(t, "position"),
			},
			Replay: rapid.SampledFrom([]string{"", "id-1"}).Draw(t, "replay"),
		}
		if rapid.Bool().Draw(t, "traced") {
			traceparent := text.Draw(t, "traceparent")
			r.Row.Traceparent = &traceparent
		}
		if rapid.Bool().Draw(t, "committed") {
			r.Commit.Time = moment.Draw(t, "commit")
		}
		line, err := r.AppendJSON([]byte("before "))
		require.NoError(t, err)
		require.Equal(t, "before "+reference(t, r), string(line))
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	r := Record{
		Row: dbgen.Outbox{
			ID: uuid.Must(uuid.NewV7()), AggregateType: "Car", AggregateID: uuid.NewString(), AggregateVersion: 7, EventType: "CarUpdated",
			EventData: json.RawMessage(`{"make": "Toyota", "text": "` + strings.Repeat("x", 400) + `", "year": 2023}`), CreatedAt: time.Now(),
		},
		Operation: OperationInsert, Timestamp: time.Now(), Commit: Commit{time.Now(), 4711, 1, "00000000/0190F400.1.00000000/0190F640"},
	}
	defer labtest.AllocsAtMost(b, 1)()
	var line []byte
	for b.Loop() {
		line, _ = r.AppendJSON(line[:0])
	}
}
