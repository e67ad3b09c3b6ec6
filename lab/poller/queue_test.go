package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

const workURL, deadURL = "http://127.0.0.1:1/000000000000/work", "http://127.0.0.1:1/000000000000/dead"

// queueWorld is a world with a queue "work", whose messages go to "dead" after three receives, and its mapping.
type queueWorld struct {
	*world
	config QueueConfig
	judge  func(ctx context.Context, batch events.SQSEvent) (any, error)

	mu      sync.Mutex
	batches [][]string // bodies
	times   map[string][]time.Duration
	began   time.Time
}

func inQueueBubble(t *testing.T, test func(*testing.T, *queueWorld)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &queueWorld{times: map[string][]time.Duration{}, began: time.Now(), world: newWorld(t, Config{}, awslocal.Config{
			Queues: []string{"work", "dead"}, Redrives: map[string]awslocal.Redrive{"work": {DeadLetterQueue: "dead", MaxReceiveCount: 3}},
		})}
		w.judge = func(context.Context, events.SQSEvent) (any, error) { return nil, nil }
		w.config = QueueConfig{SQS: w.sqs, QueueURL: workURL, Log: slog.New(slog.DiscardHandler), VisibilityTimeout: 10 * time.Second, Concurrency: 1}
		test(t, w)
	})
}

func (w *queueWorld) send(bodies ...string) {
	for _, body := range bodies {
		url := workURL
		_, err := w.sqs.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
		require.NoError(w.t, err)
	}
}

// run runs the mapping for a time of the bubble.
func (w *queueWorld) run(d time.Duration) {
	w.config.Function = func(ctx context.Context, payload []byte) ([]byte, error) {
		var batch events.SQSEvent
		if err := json.Unmarshal(payload, &batch); err != nil {
			return nil, err
		}
		w.mu.Lock()
		var bodies []string
		for _, m := range batch.Records {
			bodies = append(bodies, m.Body)
			w.times[m.Body] = append(w.times[m.Body], time.Since(w.began).Round(time.Second))
		}
		w.batches = append(w.batches, bodies)
		w.mu.Unlock()
		answer, err := w.judge(ctx, batch)
		if text, ok := answer.(string); ok {
			return []byte(text), err
		}
		data, errEncode := json.Marshal(answer)
		return data, errors.Join(err, errEncode)
	}
	p, err := NewQueue(w.config)
	require.NoError(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	p.Run(ctx)
}

// dead lists the bodies in the dead-letter queue.
func (w *queueWorld) dead() (bodies []string) {
	url := deadURL
	out, err := w.sqs.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
	require.NoError(w.t, err)
	for _, m := range out.Messages {
		bodies = append(bodies, *m.Body)
	}
	return bodies
}

func seconds(all ...int) (times []time.Duration) {
	for _, s := range all {
		times = append(times, time.Duration(s)*time.Second)
	}
	return times
}

func TestQueueIsDeliveredInBatches(t *testing.T) {
	inQueueBubble(t, func(t *testing.T, w *queueWorld) {
		var sent []string
		for n := range 23 {
			sent = append(sent, fmt.Sprint(n))
		}
		w.send(sent...)
		w.judge = func(ctx context.Context, batch events.SQSEvent) (any, error) {
			l, ok := lambdacontext.FromContext(ctx)
			require.True(t, ok)
			require.Equal(t, "arn:aws:lambda:us-east-1:000000000000:function:local", l.InvokedFunctionArn)
			m := batch.Records[0]
			require.Equal(t, "aws:sqs", m.EventSource)
			require.Equal(t, "arn:aws:sqs:us-east-1:000000000000:work", m.EventSourceARN)
			require.Equal(t, "us-east-1", m.AWSRegion)
			require.Equal(t, "1", m.Attributes["ApproximateReceiveCount"])
			return events.SQSEventResponse{}, nil
		}
		w.run(5 * time.Minute)
		require.Equal(t, sent, slices.Concat(w.batches...), "all of them, none again")
		require.Equal(t, []int{10, 10, 3}, []int{len(w.batches[0]), len(w.batches[1]), len(w.batches[2])})
		w.send("later")
		w.run(time.Second)
		require.Len(t, w.batches, 4)
	})
}

// Messages that the answer names come again by themselves when their visibility timeout is over. A
// poison message ends in the dead-letter queue.
func TestOnlyNamedMessagesComeAgain(t *testing.T) {
	inQueueBubble(t, func(t *testing.T, w *queueWorld) {
		w.send("a", "poison", "b", "hiccup")
		seen := map[string]int{}
		w.judge = func(_ context.Context, batch events.SQSEvent) (any, error) {
			var answer events.SQSEventResponse
			for _, m := range batch.Records {
				if seen[m.Body]++; m.Body == "poison" || m.Body == "hiccup" && seen[m.Body] == 1 {
					answer.BatchItemFailures = append(answer.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
				}
			}
			return answer, nil
		}
		w.run(5 * time.Minute)
		require.Equal(t, map[string][]time.Duration{"a": seconds(0), "b": seconds(0), "hiccup": seconds(0, 10), "poison": seconds(0, 10, 20)}, w.times)
		require.Equal(t, []string{"poison"}, w.dead())
	})
}

// These answers are failures of the whole batch, and these are not (Lambda developer guide,
// "Handling errors for an SQS event source").
func TestAnswersForAQueue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		again  bool
	}{
		"Nothing":        {"", false},
		"Null":           {"null", false},
		"EmptyObject":    {"{}", false},
		"EmptyList":      {`{"batchItemFailures":[]}`, false},
		"NullList":       {`{"batchItemFailures":null}`, false},
		"NotJSON":        {"oops", true},
		"EmptyID":        {`{"batchItemFailures":[{"itemIdentifier":""}]}`, true},
		"NullID":         {`{"batchItemFailures":[{"itemIdentifier":null}]}`, true},
		"OtherKey":       {`{"batchItemFailures":[{"messageId":"x"}]}`, true},
		"UnknownMessage": {`{"batchItemFailures":[{"itemIdentifier":"x"}]}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			inQueueBubble(t, func(t *testing.T, w *queueWorld) {
				w.send("a", "b")
				w.judge = func(context.Context, events.SQSEvent) (any, error) { return test.answer, nil }
				w.run(5 * time.Second)
				require.Len(t, w.batches, 1)
				w.judge = func(context.Context, events.SQSEvent) (any, error) { return nil, nil }
				w.run(time.Minute)
				require.Equal(t, test.again, len(w.batches) == 2, w.batches)
			})
		})
	}
}

// An error, a panic and a timeout are failures of the whole batch.
func TestFailedInvocationsOfAQueue(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{
		"Error":   func(context.Context) error { return errors.New("no") },
		"Panic":   func(context.Context) error { panic("no") },
		"Timeout": func(ctx context.Context) error { <-ctx.Done(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			inQueueBubble(t, func(t *testing.T, w *queueWorld) {
				w.send("a", "b")
				w.judge = func(ctx context.Context, _ events.SQSEvent) (any, error) {
					if len(w.batches) == 1 {
						return nil, fail(ctx)
					}
					return nil, nil
				}
				w.run(time.Minute)
				require.Equal(t, map[string][]time.Duration{"a": seconds(0, 10), "b": seconds(0, 10)}, w.times)
				require.Empty(t, w.dead())
			})
		})
	}
}

func TestBatchesAtOnceOfAQueue(t *testing.T) {
	inQueueBubble(t, func(t *testing.T, w *queueWorld) {
		w.config.Concurrency = 3
		w.config.BatchSize = 1
		w.judge = func(context.Context, events.SQSEvent) (any, error) { time.Sleep(2 * time.Second); return nil, nil }
		w.send("1", "2", "3", "4")
		w.run(time.Minute)
		at := map[time.Duration]int{}
		for _, times := range w.times {
			require.Len(t, times, 1)
			at[times[0]]++
		}
		require.Equal(t, map[time.Duration]int{0: 3, 2 * time.Second: 1}, at)
	})
}

// The listener goes away and comes back. The mapping goes on, and a message whose deletion was lost
// comes again.
func TestAQueueThatIsAwayIsSurvived(t *testing.T) {
	inQueueBubble(t, func(t *testing.T, w *queueWorld) {
		w.send("a")
		w.judge = func(context.Context, events.SQSEvent) (any, error) {
			if len(w.batches) == 1 {
				w.close()
				time.AfterFunc(30*time.Second, w.open)
			}
			return nil, nil
		}
		w.run(2 * time.Minute)
		require.Equal(t, []string{"a", "a"}, slices.Concat(w.batches...))
	})
}

func TestQueueConfigIsChecked(t *testing.T) {
	inQueueBubble(t, func(t *testing.T, w *queueWorld) {
		w.config.Function = func(context.Context, []byte) ([]byte, error) { return nil, nil }
		_, err := NewQueue(w.config)
		require.NoError(t, err)
		spoils := map[string]func(*QueueConfig){
			"SQS is missing":         func(c *QueueConfig) { c.SQS = nil },
			`QueueURL is "x"`:        func(c *QueueConfig) { c.QueueURL = "x" },
			"Function is missing":    func(c *QueueConfig) { c.Function = nil },
			"Log is missing":         func(c *QueueConfig) { c.Log = nil },
			"BatchSize is 11":        func(c *QueueConfig) { c.BatchSize = 11 },
			"Concurrency is -1":      func(c *QueueConfig) { c.Concurrency = -1 },
			"FunctionTimeout is 16m": func(c *QueueConfig) { c.FunctionTimeout = 16 * time.Minute },
			"VisibilityTimeout is 4": func(c *QueueConfig) { c.VisibilityTimeout = 4 * time.Second },
			"VisibilityTimeout is 6": func(c *QueueConfig) { c.VisibilityTimeout = 6500 * time.Millisecond },
		}
		for _, message := range slices.Sorted(maps.Keys(spoils)) {
			config := w.config
			spoils[message](&config)
			_, err := NewQueue(config)
			require.ErrorContains(t, err, "QueueConfig."+strings.TrimSpace(message))
		}
	})
}
