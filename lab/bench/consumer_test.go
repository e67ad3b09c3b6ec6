package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

func TestBusAcceptsEachEntry(t *testing.T) {
	t.Parallel()
	bus, err := sink.Start(0)
	require.NoError(t, err)
	defer bus.Close()
	var entries []types.PutEventsRequestEntry
	for i := range 3 {
		entries = append(entries, types.PutEventsRequestEntry{
			Source: aws.String("s"), DetailType: aws.String("t"), Detail: aws.String(fmt.Sprintf(`{"DetailType":%d}`, i)),
		})
	}
	out, err := eventbridge.NewFromConfig(awslocal.SDKConfig(bus.URL)).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
	require.NoError(t, err)
	require.Zero(t, out.FailedEntryCount)
	require.Len(t, out.Entries, 3)
	for _, entry := range out.Entries {
		require.NotEmpty(t, aws.ToString(entry.EventId))
	}
	require.Equal(t, int64(3), bus.Accepted.Load())
}

// The clients beside the consumer must send what the consumer sends, so a round of each brings
// every event.
func TestClientsSendWhatTheConsumerDoes(t *testing.T) {
	t.Parallel()
	e := &environment{Config: Config{Rounds: 1, Quick: true}}
	values, err := e.besideClients(t.Context(), 0, batchOf(25, 5))
	require.NoError(t, err)
	require.Len(t, values, 3)
	for _, v := range values {
		require.Len(t, v, 1)
		require.Positive(t, v[0])
	}

	bus, err := sink.Start(0)
	require.NoError(t, err)
	defer bus.Close()
	recorded, err := record(t.Context(), bus, batchOf(25, 5))
	require.NoError(t, err)
	require.Len(t, recorded.calls, 5, "25 events of 5 aggregates are 5 calls")
	require.Len(t, recorded.bodies, 5)
	var seen []string
	for _, body := range recorded.bodies {
		var call struct{ Entries []struct{ Detail string } }
		require.NoError(t, json.Unmarshal(body, &call))
		for _, entry := range call.Entries {
			seen = append(seen, entry.Detail)
		}
	}
	require.Len(t, seen, 25)
}

func TestBatchIsOfEventsInTheirOrder(t *testing.T) {
	t.Parallel()
	versions := map[string]int64{}
	for _, r := range batchOf(12, 4).Records {
		record, skip, err := outbox.ParseRecord(r.Kinesis.Data)
		require.NoError(t, err)
		require.Equal(t, outbox.SkipNothing, skip)
		require.Equal(t, r.Kinesis.PartitionKey, record.Row.AggregateID)
		versions[record.Row.AggregateID]++
		require.Equal(t, versions[record.Row.AggregateID], record.Row.AggregateVersion)
		require.False(t, record.Commit.Time.IsZero())
	}
	require.Len(t, versions, 4)
}

// A failure must not count as speed.
func TestPublishTellsOfAFailure(t *testing.T) {
	t.Parallel()
	bus, err := sink.Start(0)
	require.NoError(t, err)
	bus.Close()
	consumer, err := newConsumer(bus, eventbridge.NewFromConfig(awslocal.SDKConfig(bus.URL)))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, publish(ctx, consumer, batchOf(1, 1)), "published up to")
}

func TestLatenciesLeaveOutTheWaitForAPoll(t *testing.T) {
	t.Parallel()
	commit := time.Now()
	at := func(ms int) time.Time { return commit.Add(time.Duration(ms) * time.Millisecond) }
	for name, test := range map[string]struct {
		times         local.Times
		beside, whole Values
	}{
		"LessThanAnInterval": {local.Times{Commit: commit, Stream: at(3), Consumer: at(103), Bus: at(110)}, Values{10}, Values{110}},
		"LongerThanThatIsOurs": {
			local.Times{Commit: commit, Stream: at(3), Consumer: at(303), Bus: at(310)}, Values{110}, Values{310},
		},
		"OfALoad": {local.Times{Stream: at(3), Consumer: at(103), Bus: at(110)}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside, whole := latencies([]local.Times{test.times})
			require.Equal(t, test.beside, beside)
			require.Equal(t, test.whole, whole)
		})
	}
}
