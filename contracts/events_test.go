package contracts_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/contracts/eventtypes"
	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/outbox"
)

// payloads generates the eventData of each contract, any value of the generated type. A handler cannot send anything else.
var payloads = map[string]*rapid.Generator[any]{
	"CarCreated.v1.json": values[eventtypes.CarCreated](),
	"CarUpdated.v1.json": values[eventtypes.CarUpdated](),
	"CarDeleted.v1.json": values[eventtypes.CarDeleted](),
	"CanaryBeat.v1.json": values[eventtypes.CanaryBeat](),
}

func values[T any]() *rapid.Generator[any] {
	return rapid.MakeCustom[T](rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{reflect.TypeFor[time.Time](): times.AsAny()}}).AsAny()
}

// times are what PostgreSQL stores and RFC 3339 can write.
var times = rapid.Map(rapid.Int64Range(0, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()),
	func(us int64) time.Time { return time.UnixMicro(us).UTC() })

// Whatever a handler sends is as its contract says, and the contract says nothing else. Each of its members is sent at some time, with all of
// its types.
func TestEventsKeepTheirContract(t *testing.T) {
	t.Parallel()
	for name, contract := range load(t, ".") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled, publish, seen := compile(t, contract), publisher(t), seen{}
			eventType := contract["x-amazon-events-detail-type"].(string)
			rapid.Check(t, func(rt *rapid.T) {
				data, err := json.Marshal(payloads[name].Draw(rt, "eventData"))
				require.NoError(rt, err)
				record := outbox.Record{Operation: outbox.OperationInsert, Row: dbgen.Outbox{
					ID: rapid.Make[uuid.UUID]().Draw(rt, "id"), AggregateType: aggregateType(contract),
					AggregateID:      rapid.Make[uuid.UUID]().Draw(rt, "aggregate").String(),
					AggregateVersion: rapid.Int64Min(1).Draw(rt, "version"),
					EventType:        eventType, EventData: data, CreatedAt: times.Draw(rt, "created_at"),
				}}
				if rapid.Bool().Draw(rt, "traced") {
					traceparent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
					record.Row.Traceparent = &traceparent
				}
				if rapid.Bool().Draw(rt, "replayed") {
					record.Replay = "repair-1"
				}
				event := publish(record)
				require.NoError(rt, compiled.Validate(event))
				seen.add("", event)
			})
			seen.compare(t, contract)
		})
	}
}

// The golden files are what the handlers really wrote.
func TestGoldenEventsKeepTheirContract(t *testing.T) {
	t.Parallel()
	for name, contract := range load(t, ".") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eventType := contract["x-amazon-events-detail-type"].(string)
			golden, err := filepath.Glob(filepath.Join("../handlers/*/testdata", eventType+".json"))
			require.NoError(t, err)
			require.Len(t, golden, 1)
			data, err := os.ReadFile(golden[0])
			require.NoError(t, err)
			event := publisher(t)(outbox.Record{Operation: outbox.OperationInsert, Row: dbgen.Outbox{
				ID: uuid.Must(uuid.NewV7()), AggregateType: aggregateType(contract), AggregateID: uuid.NewString(), AggregateVersion: 1,
				EventType: eventType, EventData: data, CreatedAt: time.Now(),
			}})
			compiled := compile(t, contract)
			require.NoError(t, compiled.Validate(event))

			detail := event.(map[string]any)["detail"].(map[string]any)
			detail["timestamp"] = "yesterday"
			require.Error(t, compiled.Validate(event), "formats are checked")
			detail["timestamp"] = "2026-01-02T03:04:05Z"
			detail["eventData"].(map[string]any)["madeUp"] = true
			require.NoError(t, compiled.Validate(event), "further members are no error")
		})
	}
}

func aggregateType(contract schema) string {
	detail := contract["properties"].(schema)["detail"].(schema)
	return detail["properties"].(schema)["aggregateType"].(schema)["enum"].([]any)[0].(string)
}

// publisher returns a function that sends a record through the consumer to a bus, and returns the event as a rule's target gets it.
func publisher(t *testing.T) func(outbox.Record) any {
	t.Helper()
	var accepted []awslocal.BusEvent
	_, cloud := awstest.Start(t, awslocal.Config{Buses: []string{"bus"}, OnEvent: func(e awslocal.BusEvent) { accepted = append(accepted, e) }})
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge: eventbridge.NewFromConfig(cloud), SQS: sqs.NewFromConfig(cloud), BusName: "bus",
		FailureQueueURL: *cloud.BaseEndpoint + "/000000000000/none", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return func(record outbox.Record) any {
		line, err := record.AppendJSON(nil)
		require.NoError(t, err)
		accepted = nil
		answer, err := consumer.Handle(t.Context(), events.KinesisEvent{Records: []events.KinesisEventRecord{
			{Kinesis: events.KinesisRecord{SequenceNumber: "1", Data: line}},
		}})
		require.NoError(t, err)
		require.Empty(t, answer.BatchItemFailures)
		require.Len(t, accepted, 1)
		e := accepted[0]
		delivered, err := json.Marshal(map[string]any{
			"version": "0", "id": e.ID, "detail-type": e.DetailType, "source": e.Source, "account": awslocal.Account,
			"time": e.Time.UTC().Format("2006-01-02T15:04:05Z"), "region": awslocal.Region,
			"resources": append([]string{}, e.Resources...), "detail": e.Detail,
		})
		require.NoError(t, err)
		event, err := jsonschema.UnmarshalJSON(bytes.NewReader(delivered)) // numbers as written
		require.NoError(t, err)
		return event
	}
}

// seen counts the JSON types that were at each path.
type seen map[string]map[string]int

func (s seen) add(path string, value any) {
	kind := "null"
	switch value := value.(type) {
	case map[string]any:
		kind = "object"
		for name, inner := range value {
			s.add(member(path, name), inner)
		}
	case []any:
		kind = "array"
		for _, inner := range value {
			s.add(path+"[]", inner)
		}
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case json.Number:
		kind = "number"
		if !strings.ContainsAny(value.String(), ".eE") {
			kind = "integer"
		}
	}
	if s[path] == nil {
		s[path] = map[string]int{}
	}
	s[path][kind]++
}

// compare fails for a member that was sent and is not in the contract, and for one in the contract that never was.
func (s seen) compare(t *testing.T, contract schema) {
	t.Helper()
	described := map[string]bool{}
	walk("", contract, func(path string, at schema) {
		described[path] = true
		var types []string
		for kind := range s[path] {
			types = append(types, kind)
		}
		slices.Sort(types)
		require.Equal(t, set(at["type"]), types, "types of %s: of the contract, and sent", path)
	})
	for path := range s {
		require.True(t, described[path], "%s is sent, and is not in the contract", path)
	}
}
