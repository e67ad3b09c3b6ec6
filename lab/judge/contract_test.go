package judge_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
)

func TestContradictionNamesTheMemberThatIsWrong(t *testing.T) {
	t.Parallel()
	parent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	row := judge.Row{
		ID: uuid.MustParse("01938c2e-5f3a-7cc4-9d1e-0242ac120002"), AggregateType: "Car", AggregateID: "a", Version: 3, EventType: "CarUpdated",
		Data: json.RawMessage(`{"make": "<Škoda>", "n": 12345678901234567890123}`), Traceparent: &parent,
		CreatedAt: time.Date(2026, 3, 1, 13, 0, 0, 123_456_000, time.FixedZone("CET", 3600)),
	}
	good := awslocal.BusEvent{
		Source: "outbox.car", DetailType: "CarUpdated", Time: time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC),
		TraceHeader: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1",
		Detail: json.RawMessage(`{"aggregateId":"a","aggregateType":"Car","aggregateVersion":3,"eventId":"01938c2e-5f3a-7cc4-9d1e-0242ac120002",` +
			`"eventData":{"make":"<Škoda>","n":12345678901234567890123},"timestamp":"2026-03-01T12:00:00.123456Z","traceparent":"` + parent + `"}`),
	}
	require.Empty(t, judge.Contradiction(row, good))
	unsent := good
	unsent.Time = row.CreatedAt // as an SDK's entry still has it
	require.Empty(t, judge.Contradiction(row, unsent))

	inDetail := func(old, changed string) func(*awslocal.BusEvent) {
		return func(e *awslocal.BusEvent) {
			detail := strings.Replace(string(e.Detail), old, changed, 1)
			require.NotEqual(t, string(e.Detail), detail)
			e.Detail = json.RawMessage(detail)
		}
	}
	for name, test := range map[string]struct {
		want   string
		change func(*awslocal.BusEvent)
	}{
		"Source":           {"source is", func(e *awslocal.BusEvent) { e.Source = "outbox.Car" }},
		"DetailType":       {"detail-type is", func(e *awslocal.BusEvent) { e.DetailType = "CarCreated" }},
		"Time":             {"time is", func(e *awslocal.BusEvent) { e.Time = e.Time.Add(time.Millisecond) }},
		"NoTime":           {"time is", func(e *awslocal.BusEvent) { e.Time = time.Time{} }},
		"TraceHeader":      {"trace header is", func(e *awslocal.BusEvent) { e.TraceHeader = "" }},
		"Sampled":          {"trace header is", func(e *awslocal.BusEvent) { e.TraceHeader = strings.Replace(e.TraceHeader, "d=1", "d=0", 1) }},
		"Resources":        {"resources are", func(e *awslocal.BusEvent) { e.Resources = []string{"replay/1"} }},
		"NoJSON":           {"detail is", inDetail("{", "")},
		"TextAfterDetail":  {"detail is", func(e *awslocal.BusEvent) { e.Detail = append(e.Detail, ']') }},
		"AggregateID":      {"detail is", inDetail(`"a"`, `"b"`)},
		"AggregateType":    {"detail is", inDetail(`"Car"`, `"car"`)},
		"Version":          {"detail is", inDetail(`:3,`, `:"3",`)},
		"EventID":          {"detail is", inDetail(`01938c2e`, `01938C2E`)},
		"EventDataEncoded": {"detail is", inDetail(`{"make":"<Škoda>","n":12345678901234567890123}`, `"{}"`)},
		"LastDigit":        {"detail is", inDetail(`0123}`, `0124}`)},
		"Microseconds":     {"detail is", inDetail(`.123456Z`, `.123Z`)},
		"Traceparent":      {"detail is", inDetail(`,"traceparent":"`+parent+`"`, "")},
		"OneMemberMore":    {"detail is", inDetail(`"eventId"`, `"more":1,"eventId"`)},
		"MemberInOtherCase": {
			"detail is", inDetail(`"eventId"`, `"eventid"`),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := good
			test.change(&entry)
			require.True(t, strings.HasPrefix(judge.Contradiction(row, entry), test.want), judge.Contradiction(row, entry))
			require.NotEqual(t, judge.EntryText(good), judge.EntryText(entry), "a subscriber sees it")
		})
	}

	t.Run("WholeSecondsHaveNoFraction", func(t *testing.T) {
		t.Parallel()
		row, entry := row, good
		row.CreatedAt = row.CreatedAt.Truncate(time.Second)
		entry.Time = row.CreatedAt
		require.Contains(t, judge.Contradiction(row, entry), "detail is")
		inDetail(`.123456Z`, `Z`)(&entry)
		require.Empty(t, judge.Contradiction(row, entry))
	})

	t.Run("ATraceparentThatIsNotValidDoesNotTravel", func(t *testing.T) {
		t.Parallel()
		for _, invalid := range []string{
			"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
			"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "",
		} {
			row, entry := row, good
			row.Traceparent = &invalid
			require.NotEmpty(t, judge.Contradiction(row, entry))
			entry.TraceHeader = ""
			inDetail(`,"traceparent":"`+parent+`"`, "")(&entry)
			require.Empty(t, judge.Contradiction(row, entry), invalid)
		}
	})

	t.Run("TheBusMayNameAndAcceptADuplicateAnew", func(t *testing.T) {
		t.Parallel()
		again := good
		again.ID, again.Accepted = "other", time.Now()
		require.Equal(t, judge.EntryText(good), judge.EntryText(again))
	})
}

func TestDescribesComparesTheCar(t *testing.T) {
	t.Parallel()
	const car = `{"id":"a","make":"M","color":null}`
	require.True(t, judge.Describes(json.RawMessage(`{"carId":"a","make":"M","color":null,"updatedAt":"now"}`), json.RawMessage(car)))
	for _, data := range []string{`{"carId":"b","make":"M","color":null}`, `{"carId":"a","make":"M"}`, `{"carId":"a","make":"M","color":null,"x":1}`, `null`, ``} {
		require.False(t, judge.Describes(json.RawMessage(data), json.RawMessage(car)), data)
	}
	require.False(t, judge.Describes(json.RawMessage(`{}`), nil))
	require.False(t, judge.Describes(json.RawMessage(`null`), json.RawMessage(`null`)))
}

// A replay of ours marks its copies. Nothing else may add anything to an entry, and a first arrival is no copy.
func TestACopyMayHaveTheMarkerOfAReplay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := generate(rt)
		r.Replay = "asked-for"
		replayed := r.entry(r.Rows[0])
		replayed.Resources = []string{"replay/asked-for"}
		r.Arrivals = append(r.Arrivals, replayed)
		require.Empty(rt, judge.Judge(r.Round).Violations)
		r.Replay = "another"
		require.Equal(rt, judge.RuleDuplicateDiffers, judge.Judge(r.Round).Violations[0].Rule)
	})
}
