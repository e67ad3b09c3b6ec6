package outbox_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

func event(change func(*outbox.Event)) outbox.Event {
	e := outbox.Event{
		ID:               uuid.Must(uuid.NewV7()),
		AggregateType:    "Car",
		AggregateID:      uuid.NewString(),
		AggregateVersion: 1,
		Type:             "CarCreated",
		Data:             json.RawMessage(`{"make":"Toyota"}`),
	}
	if change != nil {
		change(&e)
	}
	return e
}

// object returns a JSON object of exactly n bytes as jsonb text.
func object(n int) json.RawMessage {
	const frame = `{"a": ""}`
	return json.RawMessage(`{"a": "` + strings.Repeat("x", n-len(frame)) + `"}`)
}

func TestRefusedBeforeTheDatabaseSeesIt(t *testing.T) {
	t.Parallel()
	data := func(s string) func(*outbox.Event) {
		return func(e *outbox.Event) { e.Data = json.RawMessage(s) }
	}
	for name, tc := range map[string]struct {
		field  string
		change func(*outbox.Event)
	}{
		"NoID":                         {"id", func(e *outbox.Event) { e.ID = uuid.Nil }},
		"VersionZero":                  {"aggregate_version", func(e *outbox.Event) { e.AggregateVersion = 0 }},
		"NoAggregateType":              {"aggregate_type", func(e *outbox.Event) { e.AggregateType = "" }},
		"AggregateTypeDigit":           {"aggregate_type", func(e *outbox.Event) { e.AggregateType = "1Car" }},
		"AggregateTypeNewline":         {"aggregate_type", func(e *outbox.Event) { e.AggregateType = "Car\n" }},
		"AggregateTypeTooLong":         {"aggregate_type", func(e *outbox.Event) { e.AggregateType = strings.Repeat("a", 101) }},
		"EventTypeSpace":               {"event_type", func(e *outbox.Event) { e.Type = "Car Created" }},
		"NoAggregateID":                {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "" }},
		"AggregateIDNUL":               {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a\x00" }},
		"AggregateIDFFFE":              {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a\uFFFE" }},
		"AggregateIDFFFF":              {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "\uFFFF" }},
		"DataFFFE":                     {"event_data", data("{\"a\":\"\uFFFE\"}")},
		"DataFFFFInAName":              {"event_data", data("{\"\uFFFF\":1}")},
		"DataFFFEEscaped":              {"event_data", data(`{"a":"\ufffe"}`)},
		"DataFFFFEscaped":              {"event_data", data(`{"a":"\\\uFFFF"}`)},
		"AggregateIDControl":           {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a\x1b[2J" }},
		"AggregateIDOverride":          {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a\u202Eb" }},
		"AggregateIDInvisible":         {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "\u200B\u00A0" }},
		"DataControl":                  {"event_data", data(`{"a":"\u001b"}`)},
		"DataBackspace":                {"event_data", data(`{"a":"\b"}`)},
		"DataRawC1":                    {"event_data", data("{\"a\":\"\u009B\"}")},
		"DataOverrideInAName":          {"event_data", data(`{"\u202e":1}`)},
		"DataHalfBesideFFFD":           {"event_data", data(`{"a":"\ufffd\ud800"}`)},
		"AggregateIDNotUTF8":           {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a\xff" }},
		"AggregateIDTooLong":           {"aggregate_id", func(e *outbox.Event) { e.AggregateID = strings.Repeat("é", 256) }},
		"AggregateIDSpaces":            {"aggregate_id", func(e *outbox.Event) { e.AggregateID = "a" + strings.Repeat(" ", 255) }}, // varchar(255) would cut them
		"TraceparentMalformed":         {"traceparent", func(e *outbox.Event) { e.Traceparent = "00-abc" }},
		"TraceparentZeroTrace":         {"traceparent", func(e *outbox.Event) { e.Traceparent = "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01" }},
		"DataEmpty":                    {"event_data", data("")},
		"DataNull":                     {"event_data", data("null")},
		"DataArray":                    {"event_data", data("[]")},
		"DataString":                   {"event_data", data(`"{}"`)},
		"DataCutOff":                   {"event_data", data(`{"a":`)},
		"DataTrailing":                 {"event_data", data(`{} {}`)},
		"DataNotUTF8":                  {"event_data", data("{\"a\":\"\xff\"}")},
		"DataNUL":                      {"event_data", data(`{"a":"\u0000"}`)},
		"DataNULAfterBackslash":        {"event_data", data(`{"a":"\\\u0000"}`)},
		"DataHighSurrogateAndNoLowOne": {"event_data", data(`{"a":"\ud83d\ue000"}`)},
		"DataHighSurrogate":            {"event_data", data(`{"a":"\ud83d"}`)},
		"DataHighThenOther":            {"event_data", data(`{"a":"\ud83d\u0041"}`)},
		"DataLowSurrogate":             {"event_data", data(`{"\ude00":1}`)},
		"DataTooLarge":                 {"event_data", data(string(object(outbox.MaxDataBytes + 1)))},
		"DataTooDeep":                  {"event_data", data(strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000))},
		"NumberBeyondInt64":            {"event_data", data(`{"a":9223372036854775808}`)},
		"NumberBelowInt64":             {"event_data", data(`{"a":-9223372036854775809}`)},
		"NumberSpeltOut":               {"event_data", data(`{"a":1e19}`)},
		"NumberBeyondFloat64":          {"event_data", data(`{"a":1e309}`)},
		"NumberHugeExponent":           {"event_data", data(`{"a":1e999999999999}`)},
		"NumberVanishes":               {"event_data", data(`{"a":1e-400}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := event(tc.change)
			var invalid *outbox.InvalidEventError
			// A nil DBTX: reaching for the database would panic.
			require.ErrorAs(t, outbox.Append(t.Context(), nil, e), &invalid)
			require.Equal(t, tc.field, invalid.Field)
			var batch outbox.Batch
			require.ErrorAs(t, outbox.Append(t.Context(), &batch, e), &invalid)
			require.NoError(t, batch.Send(t.Context(), nil), "it must be empty: sending would panic")
		})
	}
}

func TestAppendWritesTheWholeRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	changes := map[string]func(*outbox.Event){
		"Plain":          nil,
		"LargestVersion": func(e *outbox.Event) { e.AggregateVersion = 1<<63 - 1 },
		"LongestNames":   func(e *outbox.Event) { e.AggregateType, e.Type = strings.Repeat("T", 100), strings.Repeat("E", 100) },
		"LongestID":      func(e *outbox.Event) { e.AggregateID = strings.Repeat("€", 255) },
		"OddID":          func(e *outbox.Event) { e.AggregateID = " '\"\\%\u2028" },
		"LargestData":    func(e *outbox.Event) { e.Data = object(outbox.MaxDataBytes) },
		"EmptyData":      func(e *outbox.Event) { e.Data = json.RawMessage(" {} ") },
		"DeepestData": func(e *outbox.Event) {
			e.Data = json.RawMessage(strings.Repeat(`{"a":`, 999) + "1" + strings.Repeat("}", 999))
		},
		"Escapes":          func(e *outbox.Event) { e.Data = json.RawMessage(`{"a":"\ud83d\ude00\\u0000<&>\n"}`) },
		"Int64":            func(e *outbox.Event) { e.Data = json.RawMessage(`{"a":[9223372036854775807,-9223372036854775808]}`) },
		"FractionBeyond":   func(e *outbox.Event) { e.Data = json.RawMessage(`{"a":10000000000000000000.5}`) },
		"SmallFraction":    func(e *outbox.Event) { e.Data = json.RawMessage(`{"a":[1e-300,0e-400]}`) },
		"Traceparent":      func(e *outbox.Event) { e.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
		"SQLInEveryString": func(e *outbox.Event) { e.AggregateID = "'); DROP TABLE outbox; --" },
	}
	ways := map[string]func(*testing.T, outbox.Event){
		"Tx": func(t *testing.T, e outbox.Event) {
			require.NoError(t, pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
				return outbox.Append(t.Context(), tx, e)
			}))
		},
		"Batch": func(t *testing.T, e outbox.Event) {
			var batch outbox.Batch
			require.NoError(t, outbox.Append(t.Context(), &batch, e))
			require.NoError(t, batch.Send(t.Context(), db.Pool))
		},
	}
	for way, write := range ways {
		for name, change := range changes {
			t.Run(way+name, func(t *testing.T) {
				t.Parallel()
				e := event(change)
				e.AggregateType = way + e.AggregateType[min(len(way), len(e.AggregateType)-1):] // the ways share the table
				write(t, e)

				rows, err := db.Pool.Query(t.Context(), "SELECT * FROM outbox WHERE id = $1", e.ID)
				require.NoError(t, err)
				row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[dbgen.Outbox])
				require.NoError(t, err)
				require.Equal(t, e.AggregateType, row.AggregateType)
				require.Equal(t, e.AggregateID, row.AggregateID)
				require.Equal(t, e.AggregateVersion, row.AggregateVersion)
				require.Equal(t, e.Type, row.EventType)
				require.JSONEq(t, string(e.Data), string(row.EventData))
				if e.Traceparent == "" {
					require.Nil(t, row.Traceparent)
				} else {
					require.Equal(t, e.Traceparent, *row.Traceparent)
				}
			})
		}
	}
}

func TestOnlyTheDatabaseFindsOut(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for name, tc := range map[string]struct{ data, reason string }{
		// Each is within the limit as sent. jsonb's text has a space after every colon and comma, and no exponents.
		"SpacesAdded":       {`{"a":[` + strings.Repeat("1,", 25_000) + `1]}`, "longer than"},
		"ExponentSpeltOut":  {`{"a":[` + strings.Repeat("1e-250,", 1000) + `1]}`, "longer than"},
		"TooManyFractional": {`{"a":0.` + strings.Repeat("1", 20_000) + `}`, "refused by PostgreSQL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := event(func(e *outbox.Event) { e.Data = json.RawMessage(tc.data) })
			var invalid *outbox.InvalidEventError

			err := outbox.Append(t.Context(), db.Pool, e)
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, "event_data", invalid.Field)
			require.Contains(t, invalid.Reason, tc.reason)

			var batch outbox.Batch
			_, err = batch.Exec(t.Context(), "CREATE TABLE made_with_"+strings.ToLower(name)+" ()")
			require.NoError(t, err)
			require.NoError(t, outbox.Append(t.Context(), &batch, e))
			require.ErrorAs(t, batch.Send(t.Context(), db.Pool), &invalid)
			require.Contains(t, invalid.Reason, tc.reason)

			var made *string
			require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT to_regclass($1)::text", "made_with_"+strings.ToLower(name)).Scan(&made))
			require.Nil(t, made, "the rest of the batch must go with the event")
		})
	}
}

func TestVersionUsedTwiceIsAnError(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	first := event(nil)
	require.NoError(t, outbox.Append(t.Context(), db.Pool, first))
	second := event(func(e *outbox.Event) { e.AggregateID = first.AggregateID })
	require.ErrorContains(t, outbox.Append(t.Context(), db.Pool, second), "outbox_pkey")
}

// What validate lets through, PostgreSQL stores (or refuses as an invalid event), and what comes out is still within
// EventBridge's limits for numbers.
func TestWhatIsAcceptedTravels(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	number := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.Int64().Draw(t, "int")) }),
		rapid.Custom(func(t *rapid.T) string {
			b, _ := json.Marshal(rapid.Float64Range(-1e308, 1e308).Draw(t, "float"))
			return string(b)
		}),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?`),
	)
	text := rapid.OneOf(rapid.StringMatching(`([a-z<&>]|\\u[0-9a-fA-F]{4}|\\\\|\\n|\\ud83d\\ude00){0,8}`), rapid.Just("plain"))
	rapid.Check(t, func(rt *rapid.T) {
		e := event(nil)
		e.Data = json.RawMessage(fmt.Sprintf(`{"n":[%s,%s],"s":"%s"}`, number.Draw(rt, "n1"), number.Draw(rt, "n2"), text.Draw(rt, "s")))
		err := outbox.Append(t.Context(), db.Pool, e)
		var invalid *outbox.InvalidEventError
		if err != nil {
			require.ErrorAs(rt, err, &invalid)
			return
		}
		var stored string
		require.NoError(rt, db.Pool.QueryRow(t.Context(), "SELECT event_data::text FROM outbox WHERE id = $1", e.ID).Scan(&stored))
		e.Data = json.RawMessage(stored)
		require.NoError(rt, outbox.Append(t.Context(), &outbox.Batch{}, e), "stored as %s", stored)
	})
}
