package cdcconsumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLanes(t *testing.T) {
	t.Parallel()

	many := func(n int) (records [][]byte) {
		for i := range n {
			records = append(records, car(fmt.Sprintf("a%04d", i), 1))
		}
		return records
	}
	slow := func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
		time.Sleep(10 * time.Millisecond)
		return acceptAll(entries), nil
	}

	t.Run("SendLanesTimesTenPerRoundTrip", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = slow
			started := time.Now()
			require.Equal(t, -1, b.handle(t, time.Minute, batch(many(1000)...)))
			require.Equal(t, 100*time.Millisecond, time.Since(started), "10 round trips of 10 lanes")
			require.Len(t, b.calls, 100)
		})
	})

	t.Run("SendOneAggregateOneByOne", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = slow
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1), car("a", 2), car("a", 3))))
			require.Equal(t, []int64{1, 2, 3}, b.sent("a"))
			require.Len(t, b.calls, 3)
		})
	})

	t.Run("KeepTypesApart", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			driver := row("a", 1)
			driver.AggregateType = "Driver"
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1), record(driver))))
			require.Len(t, b.calls, 1, "two aggregates, although they share an id")
		})
	})

	t.Run("StartWithTheLongestAggregate", func(t *testing.T) {
		inBubble(t, Config{Lanes: 1}, func(t *testing.T, b *bundle) {
			b.put = slow
			var records [][]byte
			for v := range int64(10) {
				records = append(records, car("hot", v+1))
			}
			records = append(records, many(90)...)
			require.Equal(t, -1, b.handle(t, time.Minute, batch(records...)))
			require.Len(t, b.calls, 10, "its ten calls have room for the others")
		})
	})

	t.Run("KeepCallsBelowTheSizeLimit", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			var records [][]byte
			for i := range 20 {
				big := row(fmt.Sprint("a", i), 1)
				big.EventData = json.RawMessage(`{"x": "` + strings.Repeat("é", 30<<10-10) + `"}`)
				records = append(records, record(big))
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(records...)))
			for _, call := range b.calls {
				size := 0
				for _, e := range call {
					size += 14 + len(e.Source) + len(e.DetailType) + len(e.Detail)
				}
				require.Less(t, size, 256<<10)
			}
			require.Len(t, b.calls, 5, "four of 60 KiB fit")
		})
	})

	t.Run("AreNoMoreWhenACallIsSentAgainOneByOne", func(t *testing.T) {
		inBubble(t, Config{Lanes: 2}, func(t *testing.T, b *bundle) {
			var calls, most atomic.Int32
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				most.Store(max(most.Load(), calls.Add(1)))
				defer calls.Add(-1)
				time.Sleep(10 * time.Millisecond)
				if len(entries) > 1 {
					return answer{status: 400, code: "ValidationException"}, nil
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(many(10)...)))
			require.Len(t, b.calls, 11)
			require.EqualValues(t, 2, most.Load())
		})
	})

	t.Run("SendLessAfterATimeout", func(t *testing.T) {
		inBubble(t, Config{Lanes: 1}, func(t *testing.T, b *bundle) {
			b.put = func(ctx context.Context, call int, entries []wireEntry) (answer, error) {
				if call == 1 {
					<-ctx.Done()
					return answer{}, ctx.Err()
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(many(10)...)))
			require.Len(t, b.calls[0], 10)
			require.Len(t, b.calls[1], 1)
			require.Equal(t, "a0000", b.calls[1][0].detail().AggregateID, "the lowest place goes first")
		})
	})

	t.Run("StopStartingWhenAWholeCallFails", func(t *testing.T) {
		inBubble(t, Config{Lanes: 3}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				time.Sleep(10 * time.Millisecond)
				if entries[0].detail().AggregateID == "a0000" {
					return answer{}, errors.New("broken")
				}
				time.Sleep(10 * time.Millisecond)
				return acceptAll(entries), nil
			}
			require.Equal(t, 0, b.handle(t, time.Minute, batch(many(100)...)))
			require.Len(t, distinct(b.calls), 30, "lanes were started after the failure")
		})
	})

	t.Run("StopStartingWhenSeveralFailAndGoOnAfterwards", func(t *testing.T) {
		inBubble(t, Config{Lanes: 3}, func(t *testing.T, b *bundle) {
			recovered := time.Now().Add(10 * time.Second)
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				time.Sleep(10 * time.Millisecond)
				codes := make([]string, len(entries))
				if time.Now().After(recovered) {
					return results(codes...), nil
				}
				switch first := entries[0].detail().AggregateID; {
				case first < "a0020":
					codes[0] = "ThrottlingException"
				case first < "a0030":
					time.Sleep(10 * time.Millisecond) // succeeds when the two others have failed
				default:
					t.Errorf("a lane was started with %s", first)
				}
				return results(codes...), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(many(100)...)))
			require.Len(t, distinct(b.calls), 100)
		})
	})

	t.Run("GoOnBesideOneEntryThatFails", func(t *testing.T) {
		inBubble(t, Config{Lanes: 2}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				time.Sleep(10 * time.Millisecond)
				codes := make([]string, len(entries))
				if entries[0].detail().AggregateID == "a0000" {
					codes[0] = "InternalFailure"
				}
				return results(codes...), nil
			}
			require.Equal(t, 0, b.handle(t, time.Minute, batch(many(100)...)))
			require.Len(t, distinct(b.calls), 100)
		})
	})
}

// distinct lists the aggregates that were ever sent.
func distinct(calls [][]wireEntry) map[string]bool {
	aggregates := map[string]bool{}
	for _, call := range calls {
		for _, e := range call {
			aggregates[e.detail().AggregateID] = true
		}
	}
	return aggregates
}
