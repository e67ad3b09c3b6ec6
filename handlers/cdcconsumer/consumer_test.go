package cdcconsumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

func TestNew(t *testing.T) {
	t.Parallel()
	eventBridge, queue := (&services{}).clients()
	valid := Config{
		EventBridge: eventBridge, SQS: queue, BusName: "OutboxEventBus",
		FailureQueueURL: "http://127.0.0.1:4000/000000000000/failures", Logger: slog.New(slog.DiscardHandler),
	}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string // in the error, or "" for no error
	}{
		"AcceptsAName":            {func(*Config) {}, ""},
		"AcceptsAnARN":            {func(c *Config) { c.BusName = "arn:aws:events:eu-west-1:000000000000:event-bus/b" }, ""},
		"RefusesNoEventBridge":    {func(c *Config) { c.EventBridge = nil }, "EventBridge"},
		"RefusesNoSQS":            {func(c *Config) { c.SQS = nil }, "SQS"},
		"RefusesNoLogger":         {func(c *Config) { c.Logger = nil }, "Logger"},
		"RefusesNoBusName":        {func(c *Config) { c.BusName = "" }, "BusName"},
		"RefusesABadBusName":      {func(c *Config) { c.BusName = "my bus" }, `"my bus"`},
		"RefusesAQueueName":       {func(c *Config) { c.FailureQueueURL = "failures" }, `"failures"`},
		"RefusesNegativeLanes":    {func(c *Config) { c.Lanes = -1 }, "Lanes -1"},
		"RefusesNegativeMargin":   {func(c *Config) { c.Margin = -1 }, "Margin -1ns"},
		"RefusesNegativeTimeouts": {func(c *Config) { c.CallTimeout = -1 }, "CallTimeout -1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := valid
			test.change(&config)
			_, err := New(config)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestHandle(t *testing.T) {
	t.Parallel()

	t.Run("AnswersNothingToAnEmptyBatch", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			response, err := b.consumer.Handle(context.Background(), events.KinesisEvent{})
			require.NoError(t, err)
			require.Empty(t, response.BatchItemFailures)
		})
	})

	t.Run("CountsEachRecordOnceInOneLine", func(t *testing.T) {
		inBubble(t, Config{Margin: time.Second}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				codes := make([]string, len(entries))
				for i, e := range entries {
					if e.detail().AggregateID == "c" {
						codes[i] = "AccessDeniedException"
					}
				}
				return results(codes...), nil
			}
			deleted := bytes.Replace(car("z", 1), []byte(`"insert"`), []byte(`"delete"`), 1)
			require.Equal(t, 5, b.handle(t, 20*time.Second, batch(
				car("a", 1), control, []byte("poison"), control, deleted, car("c", 1), car("b", 1), []byte("poison"))))
			line := b.batchLine(t)
			require.Subset(t, line, map[string]any{
				"level": "ERROR", "hop": 5.0, "shard": "shardId-000000000006", "records": 8.0, "published": 2.0, "parked": 1.0,
				"skipped": 3.0, "skipped_control": 2.0, "skipped_delete": 1.0, "failed": 2.0, "duration_ms": 19000.0,
				"first_sequence_number":         fmt.Sprintf("4959%052d", 0),
				"last_sequence_number":          fmt.Sprintf("4959%052d", 7),
				"lowest_failed_sequence_number": fmt.Sprintf("4959%052d", 5),
				"error":                         "PutEvents: AccessDeniedException: scripted",
			})
			require.NotContains(t, b.log.String(), "Volvo", "payload in the log")
		})
	})

	t.Run("DecodesNoMoreThanTheNextCallNeeds", func(t *testing.T) {
		// The rest is decoded while the call waits for its answer.
		inBubble(t, Config{Lanes: 1}, func(t *testing.T, b *bundle) {
			decoded, atCall := 0, []int(nil)
			b.consumer.parse = func(data []byte) (outbox.Record, outbox.Skip, error) {
				decoded++
				return outbox.ParseRecord(data)
			}
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				atCall = append(atCall, decoded) // the only lane is this call's
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(append([][]byte{control, car("a", 1), car("a", 2)}, cars(24, 24)...)...)))
			require.Equal(t, []int{12, 21, 27}, atCall)
		})
	})
	t.Run("StopsReadingAtAPanic", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.consumer.parse = func(data []byte) (outbox.Record, outbox.Skip, error) {
				if string(data) == "panic" {
					panic("scripted")
				}
				return outbox.ParseRecord(data)
			}
			require.Equal(t, 1, b.handle(t, time.Minute, batch(car("a", 1), []byte("panic"), car("b", 2))))
			require.Equal(t, []int64{1}, b.sent("a"))
			require.Empty(t, b.sent("b"), "may have overtaken the record before it")
			require.Contains(t, b.log.String(), "decodeItem", "no stack in the log")
		})
	})

	t.Run("TakesAPanicOfACallForItsFailure", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
				if call == 1 {
					panic("scripted")
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1))))
			require.Equal(t, []int64{1, 1}, b.sent("a"))
		})
	})

	t.Run("ReturnsAnErrorForAPanicOfItsOwn", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.consumer.config.SQS = nil
			_, err := b.consumer.Handle(context.Background(), batch([]byte("poison")))
			require.ErrorContains(t, err, "panic")
		})
	})

	t.Run("RetriesWhatTheAnswerLeavesOut", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
				if call == 1 {
					return results(""), nil // of three
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1), car("b", 1), car("c", 1))))
			require.Equal(t, []int64{1}, b.sent("a"))
			require.Equal(t, []int64{1, 1}, b.sent("b"))
			require.Equal(t, []int64{1, 1}, b.sent("c"))
		})
	})

	t.Run("RetriesAResultWithoutEventID", func(t *testing.T) {
		for _, entry := range []map[string]any{{}, {"EventId": ""}, {"EventId": "", "ErrorCode": ""}} {
			t.Run(fmt.Sprint(len(entry)), func(t *testing.T) {
				inBubble(t, Config{}, func(t *testing.T, b *bundle) {
					b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
						if call == 1 {
							return answer{body: map[string]any{"Entries": []any{entry}}}, nil
						}
						return acceptAll(entries), nil
					}
					require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1))))
					require.Equal(t, []int64{1, 1}, b.sent("a"))
				})
			})
		}
	})

	t.Run("TakesAnEmptyErrorCodeForNone", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(context.Context, int, []wireEntry) (answer, error) {
				return answer{body: map[string]any{"Entries": []any{map[string]any{"EventId": "1", "ErrorCode": ""}}}}, nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1))))
			require.Equal(t, []int64{1}, b.sent("a"))
		})
	})

	t.Run("AnswersBeforeTheDeadlineOfABusThatNeverAnswers", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(ctx context.Context, _ int, _ []wireEntry) (answer, error) {
				<-ctx.Done()
				return answer{}, ctx.Err()
			}
			started := time.Now()
			require.Equal(t, 0, b.handle(t, 30*time.Second, batch(car("a", 1))))
			took := time.Since(started).Round(time.Second)
			require.Equal(t, 15*time.Second, took, "5 s, then 10 s, and no call that the deadline would cut off")
			require.Len(t, b.calls, 2)
			require.Equal(t, 0, b.handle(t, 30*time.Second, batch(car("a", 1))))
			require.Equal(t, 20*time.Second, time.Since(started).Round(time.Second)-took, "the next invocation knows that 10 s were not enough")
			require.Len(t, b.calls, 3, "an invocation makes one call at least")
		})
	})

	t.Run("KeepsHalfOfAShortTimeAsMargin", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(context.Context, int, []wireEntry) (answer, error) { return answer{}, errors.New("broken") }
			started := time.Now()
			require.Equal(t, 0, b.handle(t, 3*time.Second, batch(car("a", 1))))
			require.Equal(t, 1500*time.Millisecond, time.Since(started))
		})
	})

	t.Run("HasABudgetWithoutADeadline", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(context.Context, int, []wireEntry) (answer, error) { return answer{}, errors.New("broken") }
			started := time.Now()
			response, err := b.consumer.Handle(context.Background(), batch(car("a", 1)))
			require.NoError(t, err)
			require.Len(t, response.BatchItemFailures, 1)
			require.Equal(t, budget-4*time.Second, time.Since(started))
		})
	})

	t.Run("SendsNothingWithoutTime", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			response, err := b.consumer.Handle(ctx, batch([]byte("poison"), car("a", 1)))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("4959%052d", 0), response.BatchItemFailures[0].ItemIdentifier, "parking needs time, too")
			require.Empty(t, b.calls)
			require.Empty(t, b.parked)
		})
	})

	t.Run("MakesOneAttemptPerCall", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			var at []time.Time
			b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
				if at = append(at, time.Now()); call < 4 {
					return answer{status: 500, code: "InternalException"}, nil
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1))))
			require.Len(t, at, 4)
			for i, longest := range []time.Duration{firstBackoff, 2 * firstBackoff, 4 * firstBackoff} {
				gap := at[i+1].Sub(at[i])
				require.True(t, longest/2 <= gap && gap < longest, "call %d came after %s: a retry that is not the consumer's", i+2, gap)
			}
		})
	})
}
