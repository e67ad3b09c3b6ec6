package poller

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestBatches(t *testing.T) {
	t.Parallel()

	t.Run("ComeInOrderUpToTheBatchSize", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 250)...)
			got := w.run(succeed, time.Minute)
			require.Equal(t, [][]string{numbered(lower, 1, 100), numbered(lower, 101, 200), numbered(lower, 201, 250)}, got)
		})
	})

	t.Run("HaveTheShapeOfLambda", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(upper, 7)
			var payload []byte
			w.config.Function = func(_ context.Context, p []byte) ([]byte, error) { payload = p; return nil, nil }
			poller, err := New(w.config)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			require.NoError(t, poller.Run(ctx))
			sequence := between(string(payload), `"sequenceNumber":"`, `"`)
			require.Greater(t, len(sequence), 50)
			require.JSONEq(t, `{"Records":[{
				"awsRegion": "us-east-1", "eventName": "aws:kinesis:record", "eventSource": "aws:kinesis", "eventVersion": "1.0",
				"eventID": "shardId-000000000001:`+sequence+`",
				"eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/outbox",
				"invokeIdentityArn": "arn:aws:iam::000000000000:role/local",
				"kinesis": {"approximateArrivalTimestamp": 946684800, "data": "Nw==", "partitionKey": "b",
					"sequenceNumber": "`+sequence+`", "kinesisSchemaVersion": "1.0"}
			}]}`, string(payload))
		})
	})

	t.Run("WaitForTheWindow", func(t *testing.T) {
		inBubble(t, Config{Window: 10 * time.Second, BatchSize: 5}, func(t *testing.T, w *world) {
			go func() {
				for n := range 7 {
					time.Sleep(time.Second)
					w.put(lower, n)
				}
			}()
			started := time.Now()
			got := w.run(succeed, time.Minute)
			require.Equal(t, [][]string{numbered(lower, 0, 4), numbered(lower, 5, 6)}, got)
			require.InDelta(t, 5, w.deliveries[0].at.Sub(started).Seconds(), 1, "a full batch does not wait")
			require.InDelta(t, 10, w.deliveries[1].at.Sub(w.deliveries[0].at).Seconds(), 2, "the window begins with the first record")
		})
	})

	t.Run("StayBelowThePayloadLimit", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			largest := 0
			put := strings.Repeat("x", 1<<20-10)
			for range 5 {
				w.putData(lower, put)
			}
			function := w.function(succeed)
			w.config.Function = func(ctx context.Context, p []byte) ([]byte, error) {
				largest = max(largest, len(p))
				return function(ctx, p)
			}
			w.runConfig(time.Minute)
			require.Len(t, w.deliveries, 2, "1 MiB is 1.4 in base64: four fit")
			require.LessOrEqual(t, largest, 6<<20)
		})
	})

	t.Run("DoNotWaitForAShardThatFails", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			w.put(upper, count(1, 300)...)
			n := 0
			w.run(func(_ int, d delivery) (string, error) {
				if d.records[0] == "a/1" {
					return "", errors.New("scripted")
				}
				n += len(d.records)
				return "", nil
			}, time.Minute)
			require.Equal(t, 300, n)
		})
	})
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	number := func(d delivery, place int) string { return d.event.Records[place].Kinesis.SequenceNumber }
	all := numbered(lower, 1, 5)
	for name, test := range map[string]struct {
		answer func(delivery) (string, error)
		again  []string // delivered again
	}{
		"NothingIsSuccess":         {func(delivery) (string, error) { return "", nil }, nil},
		"NullIsSuccess":            {func(delivery) (string, error) { return "null", nil }, nil},
		"EmptyObjectIsSuccess":     {func(delivery) (string, error) { return "{}", nil }, nil},
		"NullListIsSuccess":        {func(delivery) (string, error) { return `{"batchItemFailures":null}`, nil }, nil},
		"EmptyListIsSuccess":       {func(delivery) (string, error) { return `{"batchItemFailures":[]}`, nil }, nil},
		"NumberIsTheCheckpoint":    {func(d delivery) (string, error) { return d.failing(2), nil }, all[2:]},
		"LowestIsTheCheckpoint":    {func(d delivery) (string, error) { return d.failing(4, 1, 3), nil }, all[1:]},
		"FirstNumberIsAll":         {func(d delivery) (string, error) { return d.failing(0), nil }, all},
		"EventIDIsAll":             {func(d delivery) (string, error) { return failure(d.event.Records[2].EventID), nil }, all},
		"UnknownNumberIsAll":       {func(delivery) (string, error) { return failure("1"), nil }, all},
		"KnownAndUnknownIsAll":     {func(d delivery) (string, error) { return strings.Replace(d.failing(3, 4), number(d, 4), "1", 1), nil }, all},
		"EmptyNumberIsAll":         {func(delivery) (string, error) { return failure(""), nil }, all},
		"NullNumberIsAll":          {func(delivery) (string, error) { return `{"batchItemFailures":[{"itemIdentifier":null}]}`, nil }, all},
		"NumericNumberIsAll":       {func(delivery) (string, error) { return `{"batchItemFailures":[{"itemIdentifier":3}]}`, nil }, all},
		"NoListIsSuccess":          {func(d delivery) (string, error) { return strings.ToLower(d.failing(3)), nil }, nil},
		"OtherItemKeyIsAll":        {func(d delivery) (string, error) { return strings.Replace(d.failing(3), "Identifier", "ID", 1), nil }, all},
		"UnreadableAnswerIsAll":    {func(delivery) (string, error) { return "ok", nil }, all},
		"AnswerOfAnotherTypeIsAll": {func(delivery) (string, error) { return `["a"]`, nil }, all},
		"ErrorIsAll":               {func(d delivery) (string, error) { return d.failing(3), errors.New("scripted") }, all},
		"PanicIsAll":               {func(delivery) (string, error) { panic("scripted") }, all},
		"LateAnswerIsAll":          {func(delivery) (string, error) { time.Sleep(31 * time.Second); return "", nil }, all},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, w *world) {
				w.put(lower, count(1, 5)...)
				got := w.run(func(invocation int, d delivery) (string, error) {
					if invocation == 1 {
						return test.answer(d)
					}
					return "", nil
				}, time.Minute)
				want := [][]string{all}
				if test.again != nil {
					want = append(want, test.again)
				}
				require.Equal(t, want, got)
			})
		})
	}
}

func failure(identifier string) string {
	return `{"batchItemFailures":[{"itemIdentifier":"` + identifier + `"}]}`
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

func TestService(t *testing.T) {
	t.Parallel()

	// trouble puts a record before and one after something happens to the service.
	trouble := func(t *testing.T, lasting time.Duration, happen func(w *world)) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			go func() {
				time.Sleep(10 * time.Second)
				happen(w)
				w.put(lower, 2)
			}()
			require.Equal(t, [][]string{numbered(lower, 1, 1), numbered(lower, 2, 2)}, w.run(succeed, lasting+time.Minute))
		})
	}

	t.Run("MayExpireIterators", func(t *testing.T) {
		trouble(t, time.Minute, func(w *world) {
			w.server.Faults().Add(awslocal.Fault{Operation: "GetRecords", Kind: awslocal.CallError, Code: "ExpiredIteratorException", Count: 4})
		})
	})
	t.Run("MayThrottle", func(t *testing.T) {
		trouble(t, time.Minute, func(w *world) {
			w.server.Faults().Add(awslocal.Fault{
				Service: "kinesis", Kind: awslocal.CallError, Code: "ProvisionedThroughputExceededException", Operation: "GetRecords", Count: 20,
			})
		})
	})
	t.Run("MayFail", func(t *testing.T) {
		trouble(t, time.Minute, func(w *world) {
			w.server.Faults().Add(awslocal.Fault{Operation: "GetRecords", Kind: awslocal.CallError, Status: 500, Count: 20})
		})
	})
	t.Run("MayGoAndComeBack", func(t *testing.T) {
		trouble(t, 6*time.Minute, func(w *world) {
			w.close()
			time.Sleep(6 * time.Minute) // longer than iterators live
			w.open()
		})
	})
	t.Run("MayBeAwayAtFirst", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			w.close()
			go func() {
				time.Sleep(time.Minute)
				w.open()
			}()
			require.Equal(t, [][]string{numbered(lower, 1, 1)}, w.run(succeed, 90*time.Second))
		})
	})
	t.Run("MustHaveTheStream", func(t *testing.T) {
		inBubble(t, Config{Stream: "outbox"}, func(t *testing.T, w *world) {
			w.config.Stream, w.config.Function = "missing", w.function(succeed)
			poller, err := New(w.config)
			require.NoError(t, err)
			require.ErrorContains(t, poller.Run(context.Background()), "stream missing")
		})
	})
	t.Run("IsPolledFiveTimesASecond", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			var polls atomic.Int64
			w.change = func(operation string, body []byte) []byte {
				if strings.HasSuffix(operation, "GetRecords") {
					polls.Add(1)
				}
				return body
			}
			w.run(succeed, 10*time.Second)
			require.InDelta(t, 2*50, polls.Load(), 2, "two shards")
		})
	})
	t.Run("MaySplitAShard", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.split()
			go func() {
				time.Sleep(time.Second)
				w.put(upper, 1) // the child first, which waits for its parent
				time.Sleep(time.Second)
				w.put(lower, 2)
			}()
			require.Equal(t, [][]string{numbered(lower, 2, 2), numbered(upper, 1, 1)}, w.run(succeed, time.Minute))
			require.Empty(t, w.run(succeed, time.Minute))
			w.put(upper, 3)
			require.Equal(t, [][]string{numbered(upper, 3, 3)}, w.run(succeed, time.Minute))
		})
	})
}

// split makes shard 1 the child of shard 0, which is closed after its record 2. The listener itself cannot split.
func (w *world) split() {
	w.change = func(operation string, body []byte) []byte {
		var answer map[string]any
		if json.Unmarshal(body, &answer) != nil {
			return body
		}
		switch operation {
		case "Kinesis_20131202.ListShards":
			answer["Shards"].([]any)[1].(map[string]any)["ParentShardId"] = "shardId-000000000000"
		case "Kinesis_20131202.GetRecords":
			records := answer["Records"].([]any)
			if len(records) > 0 && records[len(records)-1].(map[string]any)["Data"] == "Mg==" {
				delete(answer, "NextShardIterator")
			}
		default:
			return body
		}
		body, _ = json.Marshal(answer)
		return body
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()

	t.Run("LetsAnInvocationFinish", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			started := time.Now()
			w.run(func(int, delivery) (string, error) { time.Sleep(1500 * time.Millisecond); return "", nil }, time.Second)
			require.Equal(t, 1500*time.Millisecond, time.Since(started))
			require.Empty(t, w.run(succeed, time.Second), "its answer counts")
		})
	})

	t.Run("EndsAnInvocationAfterOneSecond", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			w.config.Function = func(ctx context.Context, _ []byte) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			started := time.Now()
			w.runConfig(10 * time.Second)
			require.Equal(t, 11*time.Second, time.Since(started))
			require.Equal(t, [][]string{numbered(lower, 1, 1)}, w.run(succeed, time.Second))
		})
	})

	t.Run("EndsAnInvocationAtItsTimeout", func(t *testing.T) {
		inBubble(t, Config{FunctionTimeout: 3 * time.Second}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			var took time.Duration
			w.config.Function = func(ctx context.Context, _ []byte) ([]byte, error) {
				started := time.Now()
				<-ctx.Done()
				took = max(took, time.Since(started))
				return nil, ctx.Err()
			}
			w.runConfig(10 * time.Second)
			require.Equal(t, 3*time.Second, took)
		})
	})
}

func TestNew(t *testing.T) {
	t.Parallel()
	valid := Config{
		Kinesis: kinesis.NewFromConfig(awslocal.SDKConfig("http://127.0.0.1:1")), Stream: "outbox", Log: slog.New(slog.DiscardHandler),
		Function: func(context.Context, []byte) ([]byte, error) { return nil, nil },
	}
	_, err := New(valid)
	require.NoError(t, err)
	for name, change := range map[string]func(*Config){
		"Kinesis":               func(c *Config) { c.Kinesis = nil },
		"Stream":                func(c *Config) { c.Stream = "" },
		"Function":              func(c *Config) { c.Function = nil },
		"Log":                   func(c *Config) { c.Log = nil },
		"BatchSize":             func(c *Config) { c.BatchSize = 10_001 },
		"Window":                func(c *Config) { c.Window = 301 * time.Second },
		"ParallelizationFactor": func(c *Config) { c.ParallelizationFactor = 11 },
		"MaxRetries":            func(c *Config) { c.MaxRetries = new(-1) },
		"MaxRecordAge":          func(c *Config) { c.MaxRecordAge = -1 },
		"SQS":                   func(c *Config) { c.OnFailure = queueURL },
		"FunctionTimeout":       func(c *Config) { c.FunctionTimeout = 16 * time.Minute },
		"PollInterval":          func(c *Config) { c.PollInterval = -1 },
	} {
		t.Run("Names"+name, func(t *testing.T) {
			t.Parallel()
			config := valid
			change(&config)
			_, err := New(config)
			require.ErrorContains(t, err, "Config."+name)
		})
	}
}

func TestAShardAtRestIsWokenByItsStream(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, w *world) {
		w.config.Stored = w.server.Stored
		reads := 0
		w.change = func(operation string, body []byte) []byte {
			if strings.HasSuffix(operation, ".GetRecords") {
				w.mu.Lock()
				reads++
				w.mu.Unlock()
			}
			return body
		}
		started := time.Now()
		go func() {
			time.Sleep(time.Minute + time.Second)
			w.put(lower, 1)
			w.put(upper, 2)
			w.put(lower, 3)
		}()
		got := w.run(succeed, 2*time.Minute)
		require.ElementsMatch(t, []string{"a/1", "b/2", "a/3"}, slices.Concat(got...))
		for _, d := range w.deliveries {
			require.LessOrEqual(t, d.at.Sub(started), time.Minute+time.Second+200*time.Millisecond)
		}
		require.LessOrEqual(t, reads, 2*(120/10+4), "a shard at rest is not polled")
	})
}
