package outbox_test

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

func ptr[T any](v T) *T { return &v }

// golden is the event of testdata/insert.json and testdata/load.json.
func golden(operation string) outbox.Record {
	r := outbox.Record{
		Row: dbgen.Outbox{
			ID:               uuid.MustParse("0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"),
			AggregateType:    "Car",
			AggregateID:      "5f0c9d4e-1b7a-4c58-9f3e-6d2a8b1c4e70",
			AggregateVersion: 1,
			EventType:        "CarCreated",
			EventData:        json.RawMessage(`{"make": "Citroën", "year": 2023, "color": null, "model": "<2CV> & \"Méhari\""}`),
			Traceparent:      ptr("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
			CreatedAt:        time.Date(2026, 11, 23, 9, 15, 0, 123456000, time.UTC),
		},
		Operation: operation,
		Timestamp: time.Date(2026, 11, 23, 9, 15, 0, 130000000, time.UTC),
	}
	if operation == outbox.OperationInsert {
		r.Commit = outbox.Commit{
			Time:           time.Date(2026, 11, 23, 9, 15, 0, 125000000, time.UTC),
			TransactionID:  1139,
			Sequence:       1,
			StreamPosition: "00000002/7C007178.1.00000002/7C007178",
		}
	} else {
		r.Row.Traceparent = nil
		r.Row.CreatedAt = time.Date(2026, 11, 23, 9, 15, 0, 0, time.UTC)
	}
	return r
}

func TestRecordMatchesGoldenFile(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{outbox.OperationInsert, outbox.OperationLoad} {
		file := "testdata/" + operation + ".json"
		line, err := golden(operation).AppendJSON(nil)
		require.NoError(t, err)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(file, append(line, '\n'), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), string(line)+"\n")

		record, skip, err := outbox.ParseRecord(want)
		require.NoError(t, err)
		require.Equal(t, outbox.SkipNothing, skip)
		require.Equal(t, golden(operation), record)
	}
}

// Records of our table as DMS writes them. They are built by hand from the variants that the captured records show.
func TestEveryVariantOfOurTableIsRead(t *testing.T) {
	t.Parallel()
	const data = `"id":"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12","aggregate_type":"Car","aggregate_id":"a1","aggregate_version":7,"event_type":"CarUpdated"`
	const meta = `"timestamp":"2026-11-23T09:15:00Z","record-type":"data","operation":"insert","partition-key-type":"attribute-name","schema-name":"public","table-name":"outbox"`
	for name, line := range map[string]string{
		"JSONBAsString":    `{"data":{` + data + `,"event_data":"{\"a\": \"\\u00fc\\n\"}","created_at":"2026-11-23T09:15:00.000401Z"},"metadata":{` + meta + `}}`,
		"JSONBAsObject":    `{"data":{` + data + `,"event_data":{"a": "\u00fc\n"},"created_at":"2026-11-23T09:15:00.000401Z"},"metadata":{` + meta + `}}`,
		"NullPresent":      `{"data":{` + data + `,"event_data":"{\"a\": \"ü\\n\"}","traceparent":null,"created_at":"2026-11-23T09:15:00.000401Z"},"metadata":{` + meta + `}}`,
		"MetadataFirst":    `{"metadata":{` + meta + `},"data":{"created_at":"2026-11-23T09:15:00.000401Z","event_data":"{\"a\": \"ü\\n\"}",` + data + `}}`,
		"ExtraMembers":     `{"kinesis":{},"before-image":{},"data":{` + data + `,"extra":1,"event_data":"{\"a\": \"ü\\n\"}","created_at":"2026-11-23T09:15:00.000401Z"},"metadata":{` + meta + `,"prev-transaction-id":1}}`,
		"OddTransactionID": `{"data":{` + data + `,"event_data":"{\"a\": \"ü\\n\"}","created_at":"2026-11-23T09:15:00.000401Z"},"metadata":{"transaction-id":"18446744073709551616","commit-timestamp":"never",` + meta + `}}`,
		"PrettyPrinted":    "{\n\t\"data\":\t{\n\t\t" + strings.ReplaceAll(data, ",", ",\n\t\t") + ",\n\t\t\"event_data\":\t\"{\\\"a\\\": \\\"ü\\\\n\\\"}\",\n\t\t\"created_at\":\t\"2026-11-23T09:15:00.000401Z\"\n\t},\n\t\"metadata\":\t{" + strings.ReplaceAll(meta, ",", ",\n\t\t") + "}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record, skip, err := outbox.ParseRecord([]byte(line))
			require.NoError(t, err)
			require.Equal(t, outbox.SkipNothing, skip)
			require.JSONEq(t, `{"a":"ü\n"}`, string(record.Row.EventData))
			record.Row.EventData = nil
			require.Equal(t, dbgen.Outbox{
				ID: uuid.MustParse("0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"), AggregateType: "Car", AggregateID: "a1", AggregateVersion: 7,
				EventType: "CarUpdated", CreatedAt: time.Date(2026, 11, 23, 9, 15, 0, 401000, time.UTC),
			}, record.Row)
		})
	}
}

func TestWhatIsNoEventIsSkippedForItsReason(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		skip outbox.Skip
		line string
	}{
		"Control":                {outbox.SkipControl, `{"control":{"table-def":{}},"metadata":{"record-type":"control","operation":"create-table","schema-name":"public","table-name":"outbox"}}`},
		"ControlBare":            {outbox.SkipControl, `{"metadata":{"record-type":"control","operation":"drop-table"}}`},
		"Status":                 {outbox.SkipInternalTable, `{"data":{},"metadata":{"record-type":"data","operation":"update","schema-name":"","table-name":"awsdms_status"}}`},
		"OnlyTheBeginningCounts": {outbox.SkipOtherTable, `{"data":{},"metadata":{"record-type":"data","operation":"update","schema-name":"public","table-name":"not_awsdms_status"}}`},
		"Heartbeat":              {outbox.SkipInternalTable, `{"data":{},"metadata":{"record-type":"data","operation":"update","schema-name":"dms","table-name":"awsdms_heartbeat"}}`},
		"OtherTable":             {outbox.SkipOtherTable, `{"data":{},"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"cars"}}`},
		"OtherTypes":             {outbox.SkipOtherTable, `{"data":{"id":1,"aggregate_version":"abc","event_data":1},"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"cars"}}`},
		"DataIsText":             {outbox.SkipOtherTable, `{"data":"x","metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"cars"}}`},
		"OtherSchema":            {outbox.SkipOtherTable, `{"data":{},"metadata":{"record-type":"data","operation":"insert","schema-name":"Public","table-name":"outbox"}}`},
		"Delete":                 {outbox.SkipDelete, `{"data":{"aggregate_id":"a"},"metadata":{"record-type":"data","operation":"delete","schema-name":"public","table-name":"outbox"}}`},
		"Update":                 {outbox.SkipOperation, `{"data":{},"metadata":{"record-type":"data","operation":"update","schema-name":"public","table-name":"outbox"}}`},
		"NoDataNotNeeded":        {outbox.SkipDelete, `{"metadata":{"record-type":"data","operation":"delete","schema-name":"public","table-name":"outbox"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, skip, err := outbox.ParseRecord([]byte(tc.line))
			require.NoError(t, err)
			require.Equal(t, tc.skip, skip)
		})
	}
}

func TestWhatCanNeverBeAnEventIsAnError(t *testing.T) {
	t.Parallel()
	ours := func(data string) string {
		return `{"data":` + data + `,"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"outbox"}}`
	}
	row := func(change ...string) string {
		members := map[string]string{
			"id": `"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"`, "aggregate_type": `"Car"`, "aggregate_id": `"a"`, "aggregate_version": "1",
			"event_type": `"CarCreated"`, "event_data": `"{}"`, "created_at": `"2026-11-23T09:15:00Z"`,
		}
		members[change[0]] = change[1]
		var pairs []string
		for k, v := range members {
			if v != "" {
				pairs = append(pairs, `"`+k+`":`+v)
			}
		}
		return ours("{" + strings.Join(pairs, ",") + "}")
	}
	for name, good := range map[string]string{
		"the row that the cases change": row("traceparent", "null"),
		"the longest types":             row("aggregate_type", `"`+strings.Repeat("x", 100)+`"`),
		"the longest id":                row("aggregate_id", `"`+strings.Repeat("\U0001F697", 255)+`"`),
	} {
		_, skip, err := outbox.ParseRecord([]byte(good))
		require.NoError(t, err, name)
		require.Equal(t, outbox.SkipNothing, skip)
	}

	for name, tc := range map[string]struct{ message, line string }{
		"Empty":               {"not a DMS record", ""},
		"Text":                {"not a DMS record", "hello"},
		"Number":              {"not a DMS record", "1"},
		"Null":                {"not a DMS record", "null"},
		"Array":               {"not a DMS record", "[]"},
		"NotUTF8":             {"not valid UTF-8", strings.Replace(row("traceparent", "null"), `"Car"`, "\"C\xff\"", 1)},
		"NoMetadata":          {"no metadata", `{"data":{}}`},
		"MetadataNull":        {"no metadata", `{"metadata":null}`},
		"NoRecordType":        {"no record-type", `{"metadata":{"operation":"insert"}}`},
		"UnknownRecordType":   {"record-type", `{"metadata":{"record-type":"x","operation":"insert"}}`},
		"RecordTypeNumber":    {"not a DMS record", `{"metadata":{"record-type":1,"operation":"insert"}}`},
		"NoOperation":         {"no operation", `{"metadata":{"record-type":"data"}}`},
		"NoTable":             {"no schema-name", `{"metadata":{"record-type":"data","operation":"insert"}}`},
		"NoData":              {"no data object", ours("null")},
		"DataString":          {"cannot unmarshal string", ours(`"x"`)},
		"MetadataNumber":      {"not a DMS record", `{"metadata":1}`},
		"OperationNumber":     {"not a DMS record", strings.Replace(ours("{}"), `"insert"`, "1", 1)},
		"SchemaObject":        {"not a DMS record", strings.Replace(ours("{}"), `"public"`, "{}", 1)},
		"TableNumber":         {"not a DMS record", strings.Replace(ours("{}"), `"outbox"`, "1", 1)},
		"TableNumberBehindID": {"not a DMS record", strings.Replace(ours(`{"id":1}`), `"outbox"`, "1", 1)},
		"TraceparentNumber":   {"traceparent", row("traceparent", "1")},
		"BothMismatch":        {"traceparent", strings.Replace(row("traceparent", "1"), `"metadata":{`, `"metadata":{"timestamp":1,`, 1)},
		"MetadataFirst":       {"traceparent", `{"metadata":{"timestamp":1,"record-type":"data","operation":"insert","schema-name":"public","table-name":"outbox"},"data":` + strings.TrimPrefix(strings.SplitN(row("traceparent", "1"), `,"metadata"`, 2)[0], `{"data":`) + `}`},
		"IDMissing":           {"id", row("id", "")},
		"IDMalformed":         {"id", row("id", `"42"`)},
		"TypeMissing":         {"aggregate_type is missing", row("aggregate_type", "")},
		"TypeNumber":          {"aggregate_type", row("aggregate_type", "1")},
		"AggregateIDNull":     {"aggregate_id is missing", row("aggregate_id", "null")},
		"TypeTooLong":         {"aggregate_type has 101 characters: at most 100", row("aggregate_type", `"`+strings.Repeat("x", 101)+`"`)},
		"AggregateIDTooLong":  {"aggregate_id has 256 characters: at most 255", row("aggregate_id", `"`+strings.Repeat("é", 256)+`"`)},
		"EventTypeTooLong":    {"event_type has 101 characters: at most 100", row("event_type", `"`+strings.Repeat("x", 101)+`"`)},
		"EventTypeEmpty":      {"event_type is missing", row("event_type", `""`)},
		"VersionMissing":      {"aggregate_version", row("aggregate_version", "")},
		"VersionRounded":      {"aggregate_version", row("aggregate_version", "1.23456789012345E+17")},
		"VersionBeyondInt64":  {"aggregate_version", row("aggregate_version", "9223372036854775808")},
		"CreatedAtMissing":    {"created_at", row("created_at", "")},
		"CreatedAtNoZone":     {"created_at", row("created_at", `"2026-11-23 09:15:00"`)},
		"EventDataMissing":    {"event_data: is missing", row("event_data", "")},
		"EventDataNull":       {"event_data: is missing", row("event_data", "null")},
		"EventDataTruncated":  {"LobMaxSize", row("event_data", `"{\"a\": \"xx"`)},
		"EventDataEmpty":      {"event_data", row("event_data", `""`)},
		"EventDataTextNull":   {"not a JSON object", row("event_data", `"null"`)},
		"EventDataTextString": {"not a JSON object", row("event_data", `"\"x\""`)},
		"EventDataArray":      {"not a JSON object", row("event_data", "[]")},
		"EventDataNumber":     {"not a JSON object", row("event_data", "1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, skip, err := outbox.ParseRecord([]byte(tc.line))
			require.ErrorContains(t, err, tc.message)
			require.Equal(t, outbox.SkipNothing, skip)
		})
	}
}

func TestReplayMarker(t *testing.T) {
	t.Parallel()
	marked := golden(outbox.OperationLoad)
	marked.Replay = "repair-2026.11_23"
	line, err := marked.AppendJSON(nil)
	require.NoError(t, err)
	require.Contains(t, string(line), `,"replay-id":"repair-2026.11_23"}}`)
	for name, tc := range map[string]struct{ marker, want string }{
		"IsRead":                {`"repair-2026.11_23"`, "repair-2026.11_23"},
		"OfALetterIsRead":       {`"r"`, "r"},
		"OfTheLimitIsRead":      {`"` + strings.Repeat("x", 64) + `"`, strings.Repeat("x", 64)},
		"TooLongIsIgnored":      {`"` + strings.Repeat("x", 65) + `"`, ""},
		"EmptyIsIgnored":        {`""`, ""},
		"OddCharacterIsIgnored": {`"a/b"`, ""},
		"LineBreakIsIgnored":    {`"a\n"`, ""},
		"NullIsIgnored":         {`null`, ""},
		"NumberIsIgnored":       {`1`, ""},
		"ObjectIsIgnored":       {`{"a":1}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parsed, skip, err := outbox.ParseRecord([]byte(strings.Replace(string(line), `"repair-2026.11_23"`, tc.marker, 1)))
			require.NoError(t, err)
			require.Equal(t, outbox.SkipNothing, skip)
			want := marked
			want.Replay = tc.want
			require.Equal(t, want, parsed)
		})
	}
	t.Run("ThatNobodyWouldReadIsNotWritten", func(t *testing.T) {
		t.Parallel()
		bad := golden(outbox.OperationLoad)
		bad.Replay = "a b"
		_, err := bad.AppendJSON(nil)
		require.ErrorContains(t, err, "replay id")
	})
}

// 137 records that a DMS task wrote to Kinesis on 2025-06-21 (crate/cratedb-toolkit, examples/cdc/aws). None is ours.
func TestCapturedRecordsAreSkippedForTheRightReason(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/dms-postgres-capture.ndjson")
	require.NoError(t, err)
	defer file.Close()
	count := map[outbox.Skip]int{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, skip, err := outbox.ParseRecord(lines.Bytes())
		require.NoError(t, err)
		count[skip]++
	}
	require.NoError(t, lines.Err())
	require.Equal(t, map[outbox.Skip]int{outbox.SkipControl: 49, outbox.SkipInternalTable: 6, outbox.SkipOtherTable: 82}, count)
}

func TestWhatIsBuiltIsParsedBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64Range(0, 253402300799999999)
		payload, err := json.Marshal(map[string]string{rapid.String().Draw(t, "key"): rapid.String().Draw(t, "value")})
		require.NoError(t, err)
		r := outbox.Record{
			Row: dbgen.Outbox{
				ID:               uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
				AggregateType:    rapid.StringMatching(`[A-Za-z][A-Za-z0-9._-]{0,99}`).Draw(t, "aggregate_type"),
				AggregateID:      rapid.StringN(1, 255, -1).Draw(t, "aggregate_id"),
				AggregateVersion: rapid.Int64Min(1).Draw(t, "aggregate_version"),
				EventType:        rapid.StringMatching(`[A-Za-z][A-Za-z0-9._-]{0,99}`).Draw(t, "event_type"),
				EventData:        payload,
				CreatedAt:        time.UnixMicro(micros.Draw(t, "created_at")).UTC(),
			},
			Operation: outbox.OperationInsert,
			Timestamp: time.UnixMicro(micros.Draw(t, "timestamp")).UTC(),
			Commit: outbox.Commit{
				Time:          time.UnixMicro(micros.Draw(t, "commit")).UTC(),
				TransactionID: rapid.Uint32().Draw(t, "xid"), Sequence: rapid.IntMin(0).Draw(t, "sequence"),
			},
			Replay: rapid.StringMatching(`[A-Za-z0-9._-]{0,64}`).Draw(t, "replay"),
		}
		line, err := r.AppendJSON([]byte("before"))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(line), "before{"))
		require.NotContains(t, string(line), "\n")
		parsed, skip, err := outbox.ParseRecord(line[len("before"):])
		require.NoError(t, err)
		require.Equal(t, outbox.SkipNothing, skip)
		require.Equal(t, r, parsed)
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, operation := range []string{outbox.OperationInsert, outbox.OperationLoad} {
		line, err := golden(operation).AppendJSON(nil)
		require.NoError(f, err)
		f.Add(line)
	}
	replayed := golden(outbox.OperationLoad)
	replayed.Replay = "repair-1"
	line, err := replayed.AppendJSON(nil)
	require.NoError(f, err)
	f.Add(line)
	f.Add([]byte(`{"metadata":{"record-type":"control","operation":"drop-table"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		record, skip, err := outbox.ParseRecord(data)
		if err != nil || skip != outbox.SkipNothing {
			require.Equal(t, outbox.Record{}, record)
			return
		}
		// What is taken for an event can be written again and says the same.
		line, err := record.AppendJSON(nil)
		require.NoError(t, err)
		again, skip, err := outbox.ParseRecord(line)
		require.NoError(t, err)
		require.Equal(t, outbox.SkipNothing, skip)
		require.Equal(t, record.Row.ID, again.Row.ID)
		require.Equal(t, record.Replay, again.Replay)
		require.Equal(t, string(record.Row.EventData), string(again.Row.EventData))
	})
}
