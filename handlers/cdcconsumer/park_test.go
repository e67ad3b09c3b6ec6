package cdcconsumer

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/outbox"
)

func TestPark(t *testing.T) {
	t.Parallel()

	t.Run("KeepsPayloadAndPlaceOfWhatCannotBeDecoded", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			require.Equal(t, -1, b.handle(t, time.Minute, batch(control, []byte("\x00poison\xff"))))
			require.Len(t, b.parked, 1)
			parked := b.parked[0]
			require.Contains(t, parked.ErrorMessage, "not a DMS record")
			parked.ErrorMessage = ""
			require.Equal(t, ParkedRecord{
				Reason: ReasonUndecodable, StreamARN: "arn:aws:kinesis:eu-west-1:000000000000:stream/outbox",
				ShardID:        "shardId-000000000006",
				SequenceNumber: batch(nil, nil).Records[1].Kinesis.SequenceNumber, PartitionKey: "key-1",
				ArrivalTime: time.Unix(1763889300, 0).UTC(), Data: []byte("\x00poison\xff"), Size: 8,
			}, parked)
			require.Contains(t, b.bodies[0], `"data":"AHBvaXNvbv8="`)
			require.Contains(t, b.bodies[0], `"arrivalTime":"2025-11-23T09:15:00Z"`)
			require.Contains(t, b.log.String(), `"msg":"parked","hop":6,"event_id":"","trace_id":"","reason":"undecodable"`)
		})
	})

	t.Run("NamesTheEventThatWasRefused", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = refuse
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 7))))
			require.Len(t, b.parked, 1)
			parked, bad := b.parked[0], row("a", 7)
			require.Equal(t, []any{"refused", "MalformedDetail", "scripted", bad.ID.String(), "CarUpdated", "Car", "a", int64(7)},
				[]any{string(parked.Reason), parked.ErrorCode, parked.ErrorMessage, parked.EventID, parked.EventType,
					parked.AggregateType, parked.AggregateID, parked.AggregateVersion})
			require.Equal(t, car("a", 7), parked.Data)
			require.Contains(t, b.log.String(), `"event_id":"`+bad.ID.String()+`","trace_id":"","reason":"refused","error_code":"MalformedDetail"`)
			require.NotContains(t, b.log.String(), "Volvo", "payload in the log")
		})
	})

	t.Run("CutsARecordThatDoesNotFit", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			fits := bytes.Repeat([]byte("x"), 190<<10)
			over := bytes.Repeat([]byte("x"), 196<<10) // 261 KiB in base64
			big := bytes.Repeat([]byte("x"), 1<<20)
			require.Equal(t, -1, b.handle(t, time.Minute, batch(fits, big, over)))
			require.Len(t, b.parked, 3)
			require.True(t, b.parked[2].Truncated)
			require.Less(t, len(b.bodies[2]), maxMessageBytes)
			require.Equal(t, fits, b.parked[0].Data)
			require.False(t, b.parked[0].Truncated)
			require.Equal(t, big[:64<<10], b.parked[1].Data)
			require.True(t, b.parked[1].Truncated)
			require.Equal(t, 1<<20, b.parked[1].Size)
			for _, body := range b.bodies {
				require.LessOrEqual(t, len(body), 256<<10)
			}
		})
	})

	t.Run("SendsOnlyCharactersThatSQSTakes", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = refuse
			id := "a\u0001\uFFFE\uFFFF\U0001F697"
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car(id, 1))))
			require.Equal(t, id, b.parked[0].AggregateID)
			bad := strings.IndexFunc(b.bodies[0], func(r rune) bool { return r < ' ' || r == '\uFFFE' || r == '\uFFFF' })
			require.Equal(t, -1, bad)
		})
	})

	t.Run("LeavesPoisonAboveTheLowestFailure", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				codes := make([]string, len(entries))
				for i, e := range entries {
					codes[i] = map[string]string{"bad": "MalformedDetail", "down": "InternalFailure"}[e.detail().AggregateID]
				}
				return results(codes...), nil
			}
			require.Equal(t, 3, b.handle(t, 20*time.Second, batch(
				[]byte("poison"), car("bad", 1), car("a", 1), car("down", 1), []byte("poison"), car("bad", 2))))
			require.Len(t, b.parked, 2)
			require.Equal(t, ReasonUndecodable, b.parked[0].Reason)
			require.Equal(t, int64(1), b.parked[1].AggregateVersion)
			require.Equal(t, []int64{1, 1, 2}, b.sent("bad"), "poison does not hold its successors")
		})
	})

	t.Run("FailsTheRecordThatTheQueueDoesNotTake", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.send = func(context.Context, int) answer { return answer{status: 400, code: "AccessDeniedException"} }
			require.Equal(t, 1, b.handle(t, 20*time.Second, batch(car("a", 1), []byte("poison"), []byte("poison"), car("b", 1))))
			require.Empty(t, b.parked)
			require.Equal(t, 1, b.sends, "the second poison is above the lowest failure")
			require.Contains(t, b.batchLine(t)["error"], "parking record")
		})
	})

	t.Run("StopsInTimeToAnswer", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.send = func(ctx context.Context, _ int) answer {
				wait(ctx, 2*time.Second)
				return answer{}
			}
			started := time.Now()
			require.Equal(t, 4, b.handle(t, 10*time.Second, batch(poison(8)...)))
			require.Equal(t, 9*time.Second, time.Since(started), "a quarter of the margin is for answering")
		})
	})
}

// Whoever may write to the stream chooses every text of a record. A message that the queue refuses would block the shard until the stream
// forgets the record.
func TestEveryRecordFitsTheQueue(t *testing.T) {
	t.Parallel()
	c := &Consumer{parse: outbox.ParseRecord}
	cut := 0
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) json.RawMessage {
			one := rapid.SampledFrom([]string{"x", "<", "é", "\u0001", "\uFFFE", "\uFFFF", "\U0001F697", `"`, `\`}).Draw(t, "character")
			n := rapid.SampledFrom([]int{0, 1, 100, 101, 255, 256, 60_000}).Draw(t, "length")
			encoded, err := json.Marshal(strings.Repeat(one, n))
			require.NoError(t, err)
			number := json.RawMessage(strings.Repeat("7", max(n, 1)))
			return rapid.SampledFrom([]json.RawMessage{encoded, encoded, number}).Draw(t, "kind")
		})
		row := map[string]json.RawMessage{
			"id": json.RawMessage(`"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"`), "aggregate_type": json.RawMessage(`"Car"`), "aggregate_id": json.RawMessage(`"a"`),
			"aggregate_version": json.RawMessage("1"), "event_type": json.RawMessage(`"CarCreated"`), "event_data": json.RawMessage(`"{}"`),
			"created_at": json.RawMessage(`"2026-11-23T09:15:00Z"`),
		}
		for _, column := range rapid.SliceOfDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(row))), rapid.ID).Draw(t, "columns") {
			row[column] = text.Draw(t, column)
		}
		data, err := json.Marshal(map[string]any{"data": row, "metadata": map[string]string{
			"record-type": "data", "operation": "insert", "schema-name": "public", "table-name": "outbox",
		}})
		require.NoError(t, err)
		it := &item{record: &events.KinesisEventRecord{Kinesis: events.KinesisRecord{Data: data, PartitionKey: strings.Repeat("\u0001", 256)}}}
		require.NoError(t, c.decodeItem(context.Background(), it))
		if it.state == stateEvent {
			it.poison(ReasonRefused, "413", strings.Repeat("<", rapid.IntRange(0, 100_000).Draw(t, "message")))
		}
		body, err := parkedMessage(it)
		require.NoError(t, err)
		require.LessOrEqual(t, len(body), maxMessageBytes)
		var parked ParkedRecord
		require.NoError(t, json.Unmarshal([]byte(body), &parked))
		require.Equal(t, it.row.AggregateID, parked.AggregateID, "an id that is cut would be another id")
		if parked.Truncated {
			cut++
		}
	})
	require.Positive(t, cut)
}

func refuse(_ context.Context, _ int, entries []wireEntry) (answer, error) {
	codes := make([]string, len(entries))
	for i := range codes {
		codes[i] = "MalformedDetail"
	}
	return results(codes...), nil
}

func poison(n int) (records [][]byte) {
	for range n {
		records = append(records, []byte("poison"))
	}
	return records
}
