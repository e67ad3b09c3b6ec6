package local

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/canary"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
)

// Every hop treats the canary's beat as any other event. That carStats does not get it is its rule's business (infra/carstats.yml).
func TestACanaryBeatTravelsThePath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := canary.Beat(t.Context(), r.pool, time.Now())
	require.NoError(t, err)
	r.post(t)
	r.requireWhole(t)
	entry := r.byID()[id.String()][0].Event
	require.Equal(t, "outbox.canary", entry.Source)
	require.Equal(t, "CanaryBeat", entry.DetailType)
	require.Empty(t, r.parked(t))
}

// The longest, shortest and oddest values that the CHECKs of outbox let through travel the whole path and arrive as what they were.
func TestEveryBoundaryValueTravels(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rows := map[string]struct{ column, value string }{
		"ShortestType":      {"aggregate_type", "'a'"},
		"LongestType":       {"aggregate_type", "repeat('Zz9._-', 16) || 'Zz9.'"},
		"ShortestID":        {"aggregate_id", "' '"},
		"LongestID":         {"aggregate_id", "repeat('€', 255)"},
		"LongestAstralID":   {"aggregate_id", "repeat('😀', 255)"},
		"ControlID":         {"aggregate_id", `E'\x01\n\r\t\x7f"\\\\/<>&'''`},
		"NoncharacterID":    {"aggregate_id", `U&'\FFFE\FFFF\2028\2029\FEFF'`},
		"SQLID":             {"aggregate_id", "'''); DROP TABLE outbox; --'"},
		"FirstVersion":      {"aggregate_version", "1"},
		"LastVersion":       {"aggregate_version", "9223372036854775807"},
		"ShortestEventType": {"event_type", "'e'"},
		"LongestEventType":  {"event_type", "repeat('E', 100)"},
		"EmptyData":         {"event_data", "'{}'"},
		"LargestData":       {"event_data", `jsonb_build_object('a', repeat('x', 61440 - 9))`},
		"LargestMultibyte":  {"event_data", `jsonb_build_object('a', repeat('€', (61440 - 9) / 3))`},
		"LargestEscaped":    {"event_data", `jsonb_build_object('a', repeat(E'\x01', (61440 - 9) / 6))`},
		"LargestQuotes":     {"event_data", `jsonb_build_object('a', repeat('"', (61440 - 9) / 2))`},
		"DeepestData":       {"event_data", `(repeat('{"a": ', 999) || '1' || repeat('}', 999))::jsonb`},
		"Numbers":           {"event_data", `'{"a": [9223372036854775807, -9223372036854775808, 0.1, 1e-300, 12345678901234567890.5, 1.10]}'`},
		"HTML":              {"event_data", `'{"<b>&\u2028": "</script>"}'`},
		"Traceparent":       {"traceparent", "'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'"},
		"NoTraceparent":     {"traceparent", "repeat('x', 55)"},
		"OldestTime":        {"created_at", "'1970-01-01T00:00:00Z'"},
		"LastTime":          {"created_at", "'9999-12-31T23:59:59.999999Z'"},
		"OneMicrosecond":    {"created_at", "'2026-11-23T00:00:00.000001Z'"},
		"WholeSecond":       {"created_at", "'2026-11-23T00:00:00Z'"},
	}
	ids := map[string]string{}
	for name, row := range rows {
		columns := map[string]string{
			"id": "gen_random_uuid()", "aggregate_type": "'Car'", "aggregate_id": "'" + uuid.NewString() + "'", "aggregate_version": "1",
			"event_type": "'CarCreated'", "event_data": "'{}'", "traceparent": "NULL", "created_at": "now()",
		}
		columns[row.column] = row.value
		var id string
		require.NoError(t, r.pool.QueryRow(t.Context(), fmt.Sprintf(
			"INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id::text",
			columns["id"], columns["aggregate_type"], columns["aggregate_id"], columns["aggregate_version"], columns["event_type"],
			columns["event_data"], columns["traceparent"], columns["created_at"])).Scan(&id), name)
		ids[name] = id
	}
	r.requireWhole(t)
	require.Empty(t, r.parked(t))
	byID := r.byID()
	for name, id := range ids {
		var e struct {
			kind, aggregate, event, data string
			version                      int64
			created                      time.Time
		}
		require.NoError(t, r.pool.QueryRow(t.Context(), "SELECT aggregate_type, aggregate_id, aggregate_version, event_type, event_data::text, created_at FROM outbox WHERE id = $1", id).
			Scan(&e.kind, &e.aggregate, &e.version, &e.event, &e.data, &e.created))
		entry := byID[id][0].Event
		require.Equal(t, "outbox."+strings.ToLower(e.kind), entry.Source, name)
		require.Equal(t, e.event, entry.DetailType, name)
		require.True(t, e.created.Equal(entry.Time), name)
		var detail struct {
			AggregateID      string          `json:"aggregateId"`
			AggregateType    string          `json:"aggregateType"`
			AggregateVersion int64           `json:"aggregateVersion"`
			EventData        json.RawMessage `json:"eventData"`
			Timestamp        time.Time       `json:"timestamp"`
			Traceparent      *string         `json:"traceparent"`
		}
		require.NoError(t, json.Unmarshal(entry.Detail, &detail), name)
		require.Equal(t, e.aggregate, detail.AggregateID, name)
		require.Equal(t, e.kind, detail.AggregateType, name)
		require.Equal(t, e.version, detail.AggregateVersion, name)
		require.True(t, e.created.Equal(detail.Timestamp), name)
		// The text is the same but for white space. No number was rounded, and nothing was escaped
		// for HTML.
		require.Equal(t, withoutSpaces(e.data), withoutSpaces(string(detail.EventData)), name)
		require.Equal(t, name == "Traceparent", detail.Traceparent != nil, name)
		require.Equal(t, name == "Traceparent", entry.TraceHeader != "", name)
	}
}

func withoutSpaces(s string) string { return strings.ReplaceAll(s, " ", "") }

// parked empties the failure queue.
func (r *rig) parked(t *testing.T) []cdcconsumer.ParkedRecord {
	t.Helper()
	var all []cdcconsumer.ParkedRecord
	for {
		out, err := r.Services.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &r.Services.FailureQueueURL, MaxNumberOfMessages: 10})
		require.NoError(t, err)
		if len(out.Messages) == 0 {
			return all
		}
		for _, message := range out.Messages {
			var record cdcconsumer.ParkedRecord
			require.NoError(t, json.Unmarshal([]byte(*message.Body), &record))
			all = append(all, record)
			_, err := r.Services.SQS().DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &r.Services.FailureQueueURL, ReceiptHandle: message.ReceiptHandle})
			require.NoError(t, err)
		}
	}
}

// put puts a raw record on the stream, as something that is not our relay might.
func (r *rig) put(t *testing.T, key string, data []byte) {
	t.Helper()
	_, err := r.Services.Kinesis().PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: &r.Services.Stream, PartitionKey: &key, Data: data})
	require.NoError(t, err)
}

func (r *rig) waiting(t *testing.T) string {
	t.Helper()
	out, err := r.Services.SQS().GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &r.Services.FailureQueueURL, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages},
	})
	require.NoError(t, err)
	return out.Attributes["ApproximateNumberOfMessages"]
}

// Every kind of poison is parked with its payload, between good events of the same aggregate and of
// others. The good ones go on.
func TestPoisonIsParkedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	refused := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "MalformedDetail", Match: `"color":"Poison"`})
	car := r.post(t)
	other := r.post(t)
	poison := map[string][]byte{
		"text":      []byte("hello"),
		"notUTF8":   []byte("{\xff}"),
		"truncated": []byte(`{"data":{"id":"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12","aggregate_type":"Car","aggregate_id":"x","aggregate_version":1,"event_type":"E","event_data":"{\"a\": \"xx","created_at":"2026-11-23T09:15:00Z"},"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"outbox"}}`),
		"oversize":  []byte(strings.Repeat("x", 1_000_000)),
	}
	for _, data := range poison {
		r.put(t, car, data)
		r.patch(t, car)
		r.put(t, other, data)
		r.patch(t, other)
	}
	var refusedID string
	require.NoError(t, r.pool.QueryRow(t.Context(), `UPDATE cars SET version = version + 1 WHERE id = $1 RETURNING id::text`, car).Scan(new(string)))
	require.NoError(t, r.pool.QueryRow(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		SELECT gen_random_uuid(), 'Car', id::text, version, 'CarUpdated', '{"color":"Poison"}' FROM cars WHERE id = $1 RETURNING id::text`, car).Scan(&refusedID))
	r.patch(t, car)
	r.requireWhole(t, refusedID)
	labtest.Eventually(t, "9 parked records", func() bool { return r.waiting(t) == "9" })
	parked := r.parked(t)
	require.Len(t, parked, 9)
	require.NotZero(t, refused.Struck())
	for _, record := range parked {
		require.NotEmpty(t, record.ErrorMessage)
		require.NotEmpty(t, record.SequenceNumber)
		require.NotEmpty(t, record.ShardID)
		switch {
		case record.Reason == cdcconsumer.ReasonRefused:
			require.Equal(t, "MalformedDetail", record.ErrorCode)
			require.Equal(t, refusedID, record.EventID)
			require.Contains(t, string(record.Data), "Poison")
		case record.Truncated:
			require.Equal(t, 1_000_000, record.Size)
			require.Len(t, record.Data, 64<<10)
		default:
			require.Contains(t, []string{string(poison["text"]), string(poison["notUTF8"]), string(poison["truncated"])}, string(record.Data))
		}
	}
}

// An error that is not the event's own blocks its shard. Nothing is parked, nothing is lost, and
// when the error ends all of it arrives.
func TestTroubleBlocksAndParksNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]awslocal.Fault{
		"AccessDenied":     {Kind: awslocal.CallError, Code: "AccessDeniedException"},
		"EntriesDenied":    {Kind: awslocal.EntryError, Code: "NotAuthorizedForSourceException"},
		"UnknownEntryCode": {Kind: awslocal.EntryError, Code: "SomethingNew"},
		"BusDown":          {Kind: awslocal.CallError, Status: 503},
		"Throttled":        {Kind: awslocal.CallError, Code: "ThrottlingException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			fault.Service, fault.Operation = "events", "PutEvents"
			active := r.AWS.Faults().Add(fault)
			cars := []string{r.post(t), r.post(t), r.post(t)}
			for range 3 {
				for _, car := range cars {
					r.patch(t, car)
				}
			}
			labtest.Eventually(t, "the fault to strike often", func() bool { return active.Struck() >= 8 })
			require.Empty(t, r.arrivals())
			require.Equal(t, "0", r.waiting(t))
			active.Off()
			r.requireWhole(t)
			require.Equal(t, "0", r.waiting(t))
		})
	}
}

func TestACrowdedCallThatIsTooLargeIsSplit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// The same answer to an entry that was sent alone would rightly make it poison. How many entries
	// the consumer sends at once depends on how fast the bus answers.
	active := r.AWS.Faults().Add(awslocal.Fault{
		Service: "events", Operation: "PutEvents", MinEntries: 2, Kind: awslocal.CallError, Status: 413, Count: 1,
	})
	labtest.Eventually(t, "a call with several entries", func() bool {
		r.Relay.Stop(t.Context())
		for range 20 {
			r.post(t)
		}
		require.NoError(t, r.Relay.Start())
		r.requireWhole(t)
		return active.Struck() == 1
	})
	require.Equal(t, "0", r.waiting(t))
}

func TestFailureQueueDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	active := r.AWS.Faults().Add(awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.CallError, Status: 503})
	car := r.post(t)
	r.requireWhole(t)
	r.put(t, car, []byte("poison"))
	r.patch(t, car)
	labtest.Eventually(t, "parking to fail", func() bool { return active.Struck() >= 3 })
	require.Equal(t, "0", r.waiting(t))
	failed := regexp.MustCompile(`failed=[1-9]`)
	labtest.Eventually(t, "the batch that failed in the log", func() bool { return failed.MatchString(r.logged()) })
	active.Off()
	r.requireWhole(t)
	labtest.Eventually(t, "the poison in the queue", func() bool { return r.waiting(t) == "1" })
	require.Equal(t, []byte("poison"), r.parked(t)[0].Data)
}

// Both services accept and do not answer, again and again. Duplicates have the same id and are
// identical, and the order of first arrivals holds (requireWhole checks all of it).
func TestAnswersLostOnBothServices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	timeout := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.LostAnswer, Count: 1})
	for range 10 {
		puts := r.AWS.Faults().Add(awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.ResetAfter, Count: 1})
		events := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Count: 1})
		car := r.post(t)
		for range 4 {
			r.patch(t, car)
		}
		labtest.Eventually(t, "lost answers of both", func() bool { return puts.Struck() == 1 && events.Struck() == 1 })
	}
	r.requireWhole(t)
	require.Equal(t, 1, timeout.Struck())
}

// The CHECKs of outbox take what EventBridge refuses. Append refuses it first. A row of another writer is parked, and holds up nobody.
func TestWhatOnlyAppendRefusesIsParked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, data := range []string{
		`{"a": 9223372036854775808}`,
		strings.Repeat(`{"a": `, 1000) + "1" + strings.Repeat("}", 1000),
	} {
		var invalid *outbox.InvalidEventError
		event := outbox.Event{ID: uuid.New(), AggregateType: "Car", AggregateID: uuid.NewString(), AggregateVersion: 1, Type: "CarCreated", Data: json.RawMessage(data)}
		require.ErrorAs(t, outbox.Append(t.Context(), r.pool, event), &invalid)
		_, err := r.pool.Exec(t.Context(), "INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data) VALUES ($1, $2, $3, 1, $4, $5::text::jsonb)",
			event.ID, event.AggregateType, event.AggregateID, event.Type, data)
		require.NoError(t, err)
	}
	r.post(t)
	labtest.Eventually(t, "both in the queue", func() bool { return r.waiting(t) == "2" })
	for _, parked := range r.parked(t) {
		require.Equal(t, cdcconsumer.ReasonRefused, parked.Reason)
		require.Equal(t, "MalformedDetail", parked.ErrorCode)
	}
}
