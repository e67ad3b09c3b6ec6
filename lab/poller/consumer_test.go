package poller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// Function is Config's.
type Function = func(ctx context.Context, payload []byte) ([]byte, error)

// NewConsumer makes the consumer, which parks nothing here. Package poller_test sets it.
var NewConsumer func(bus *eventbridge.Client, log *slog.Logger) (Function, error)

// TestConsumer runs the real consumer (⑤⑥) behind the poller, against a bus in trouble.
func TestConsumer(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]awslocal.Fault{
		"BusIsSlow":            {Operation: "PutEvents", Kind: awslocal.Delay, Delay: 100 * time.Millisecond},
		"BusTakesSixASecond":   {Operation: "PutEvents", Kind: awslocal.Capacity, Capacity: 6},
		"EntriesFail":          {Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.2},
		"CallsAreThrottled":    {Operation: "PutEvents", Kind: awslocal.CallError, Code: "ThrottlingException", Rate: 0.3},
		"AnswersAreLost":       {Operation: "PutEvents", Kind: awslocal.LostAnswer, Rate: 0.1},
		"ConnectionsAreReset":  {Operation: "PutEvents", Kind: awslocal.Reset, Rate: 0.3},
		"ResetBeforeTheAnswer": {Operation: "PutEvents", Kind: awslocal.ResetAfter, Rate: 0.3},
		"BusIsDownForAWhile":   {Operation: "PutEvents", Kind: awslocal.CallError, Code: "AccessDeniedException", Count: 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got, duplicates := arrivals{}, 0
				w := newWorld(t, Config{ParallelizationFactor: 2, PollInterval: time.Second}, awslocal.Config{OnEvent: func(e awslocal.BusEvent) {
					var d struct {
						AggregateID      string `json:"aggregateId"`
						AggregateVersion int    `json:"aggregateVersion"`
					}
					require.NoError(t, json.Unmarshal(e.Detail, &d))
					before := len(got[d.AggregateID])
					if got.add(d.AggregateID + "/" + strconv.Itoa(d.AggregateVersion)); len(got[d.AggregateID]) == before {
						duplicates++
					}
				}})
				var err error
				w.config.Function, err = NewConsumer(eventbridge.NewFromConfig(w.sdk), w.config.Log)
				require.NoError(t, err)
				fault.Seed = 1
				active := w.server.Faults().Add(fault)
				written := map[string][]int{}
				for n := range 200 {
					id, version := fmt.Sprint("car-", n%20), n/20+1
					written[id] = append(written[id], version)
					w.putData(id, event(t, id, version))
				}
				for range 10 {
					if w.runConfig(time.Minute); len(got.check(written)) == 0 {
						break
					}
				}
				require.Empty(t, got.check(written))
				require.Empty(t, w.discarded(), "parked")
				require.NotZero(t, active.Struck(), "the fault did not strike")
				if active.Fault().Kind == awslocal.Delay || active.Fault().Kind == awslocal.Capacity {
					require.LessOrEqual(t, duplicates, 200/20)
				}
			})
		})
	}
}

func event(t *testing.T, id string, version int) string {
	t.Helper()
	line, err := outbox.Record{Operation: outbox.OperationInsert, Row: dbgen.Outbox{
		ID: uuid.New(), AggregateType: "Car", AggregateID: id, AggregateVersion: int64(version), EventType: "CarUpdated",
		EventData: json.RawMessage(`{}`), CreatedAt: time.Now(),
	}}.AppendJSON(nil)
	require.NoError(t, err)
	return string(line)
}
