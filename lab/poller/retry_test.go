package poller

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAfter(t *testing.T) {
	t.Parallel()
	failed := errors.New("scripted")
	for name, test := range map[string]struct {
		config    Config
		retries   int
		outcome   outcome
		done      string
		left      string // records and used retries of each
		discarded string
	}{
		"SuccessIsDone":                      {Config{}, 3, outcome{4, nil}, "abcd", "", ""},
		"PartialAnswerKeepsTheRest":          {Config{}, 0, outcome{1, nil}, "a", "bcd:1", ""},
		"PartialAnswerUsesARetry":            {Config{MaxRetries: new(2)}, 1, outcome{1, nil}, "a", "bcd:2", ""},
		"PartialAnswerIsTheLast":             {Config{MaxRetries: new(2)}, 2, outcome{1, nil}, "a", "", "bcd"},
		"NoRetryDiscardsAtOnce":              {Config{MaxRetries: new(0)}, 0, outcome{0, failed}, "", "", "abcd"},
		"FailureKeepsAll":                    {Config{}, 7, outcome{0, failed}, "", "abcd:8", ""},
		"FailureIsTheLast":                   {Config{MaxRetries: new(2)}, 2, outcome{0, failed}, "", "", "abcd"},
		"BisectHalvesAFailure":               {Config{BisectOnError: true, MaxRetries: new(2)}, 2, outcome{0, failed}, "", "ab:2 cd:2", ""},
		"BisectSplitsAtTheNumber":            {Config{BisectOnError: true, MaxRetries: new(2)}, 2, outcome{1, nil}, "a", "bcd:2", ""},
		"BisectHasNothingToSplitAtTheFirst":  {Config{BisectOnError: true, MaxRetries: new(2)}, 1, outcome{0, nil}, "", "abcd:2", ""},
		"BisectDiscardsAtTheFirst":           {Config{BisectOnError: true, MaxRetries: new(2)}, 2, outcome{0, nil}, "", "", "abcd"},
		"BisectWithoutFailureChangesNothing": {Config{BisectOnError: true}, 0, outcome{4, nil}, "abcd", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := test.config.after(work{records: letters("abcd"), retries: test.retries, invocations: 5}, test.outcome)
			var left []string
			for _, w := range d.left {
				left = append(left, fmt.Sprintf("%s:%d", spell(w.records), w.retries))
				require.Equal(t, 6, w.invocations)
			}
			require.Equal(t, []string{test.done, test.left, test.discarded},
				[]string{spell(d.done), strings.Join(left, " "), spell(d.discarded.records)})
		})
	}

	t.Run("BisectCannotSplitOne", func(t *testing.T) {
		t.Parallel()
		d := Config{BisectOnError: true, MaxRetries: new(1)}.after(work{records: letters("a"), retries: 1}, outcome{0, failed})
		require.Equal(t, "a", spell(d.discarded.records))
	})

	t.Run("HandlesEachRecordOnceInOrder", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(rt *rapid.T) {
			l := Config{BisectOnError: rapid.Bool().Draw(rt, "bisect"), MaxRetries: new(rapid.IntRange(0, 3).Draw(rt, "maxRetries"))}
			all := "abcdefghijklmnop"[:rapid.IntRange(1, 16).Draw(rt, "records")]
			handled := ""
			left := []work{{records: letters(all)}}
			for len(left) > 0 {
				w := left[0]
				o := outcome{from: rapid.IntRange(0, len(w.records)).Draw(rt, "from")}
				if rapid.Bool().Draw(rt, "error") {
					o = outcome{err: failed}
				}
				d := l.after(w, o)
				require.LessOrEqual(rt, w.retries, *l.MaxRetries)
				handled += spell(d.done) + spell(d.discarded.records)
				left = append(d.left, left[1:]...)
				rest := ""
				for _, w := range left {
					rest += spell(w.records)
				}
				require.Equal(rt, all, handled+rest)
			}
		})
	})
}

func letters(s string) (records []*record) {
	for _, letter := range s {
		records = append(records, &record{sequenceNumber: string(letter)})
	}
	return records
}

func spell(records []*record) (s string) {
	for _, r := range records {
		s += r.sequenceNumber
	}
	return s
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	poison := func(_ int, d delivery) (string, error) { // record 3 never succeeds
		for i, r := range d.records {
			if r == "a/3" {
				return d.failing(i), nil
			}
		}
		return "", nil
	}
	fail := func(n string) func(int, delivery) (string, error) {
		return func(_ int, d delivery) (string, error) {
			if strings.Contains(strings.Join(d.records, " ")+" ", n+" ") {
				return "", errors.New("scripted")
			}
			return "", nil
		}
	}

	t.Run("NeverHappensWithoutLimits", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 5)...)
			got := w.run(poison, 5*time.Minute)
			require.Greater(t, len(got), 50)
			require.Equal(t, numbered(lower, 3, 5), got[len(got)-1])
			gap := w.deliveries[len(got)-1].at.Sub(w.deliveries[len(got)-2].at)
			require.Equal(t, 5*time.Second, gap, "the longest backoff")
		})
	})

	t.Run("TakesTheRestOfTheBatchAndTellsTheQueue", func(t *testing.T) {
		inBubble(t, Config{MaxRetries: new(2), OnFailure: queueURL}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 5)...)
			got := w.run(poison, 30*time.Second)
			require.Equal(t, [][]string{numbered(lower, 1, 5), numbered(lower, 3, 5), numbered(lower, 3, 5)}, got)
			first, last := w.deliveries[0].event.Records[2], w.deliveries[0].event.Records[4]
			messages := w.discarded()
			require.Len(t, messages, 1)
			require.JSONEq(t, `{
				"requestContext": {"requestId": "ID", "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:local",
					"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 3},
				"responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
				"version": "1.0", "timestamp": "2000-01-01T00:00:00.300Z",
				"KinesisBatchInfo": {"shardId": "shardId-000000000000",
					"startSequenceNumber": "`+first.Kinesis.SequenceNumber+`", "endSequenceNumber": "`+last.Kinesis.SequenceNumber+`",
					"approximateArrivalOfFirstRecord": "2000-01-01T00:00:00.000Z", "approximateArrivalOfLastRecord": "2000-01-01T00:00:00.000Z",
					"batchSize": 3, "streamArn": "arn:aws:kinesis:us-east-1:000000000000:stream/outbox"}
			}`, regexp.MustCompile(`"requestId":"[^"]+"`).ReplaceAllString(messages[0], `"requestId":"ID"`))
			w.put(lower, 6)
			require.Equal(t, [][]string{numbered(lower, 6, 6)}, w.run(succeed, time.Second), "the checkpoint is behind what was discarded")
		})
	})

	t.Run("TakesOneRecordWithBisecting", func(t *testing.T) {
		inBubble(t, Config{MaxRetries: new(1), BisectOnError: true, OnFailure: queueURL}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 8)...)
			got := w.run(fail("a/3"), time.Minute)
			require.Equal(t, [][]string{
				numbered(lower, 1, 8), numbered(lower, 1, 4), numbered(lower, 1, 2), numbered(lower, 3, 4), numbered(lower, 3, 3),
				numbered(lower, 3, 3), numbered(lower, 4, 4), numbered(lower, 5, 8),
			}, got)
			messages := w.discarded()
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], `"batchSize":1,`)
			require.Contains(t, messages[0], `"functionError":"Unhandled"`)
		})
	})

	t.Run("TakesWhatIsTooOld", func(t *testing.T) {
		inBubble(t, Config{MaxRecordAge: time.Minute, OnFailure: queueURL}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			go func() {
				time.Sleep(50 * time.Second)
				w.put(lower, 2)
			}()
			delivered := map[string]time.Duration{}
			started := time.Now()
			w.run(func(_ int, d delivery) (string, error) {
				delivered[d.records[0]] = time.Since(started)
				if d.records[0] == "a/1" {
					return "", errors.New("scripted")
				}
				return "", nil
			}, 2*time.Minute)
			require.InDelta(t, 57, delivered["a/1"].Seconds(), 4, "the last time before its minute is over")
			require.InDelta(t, 61, delivered["a/2"].Seconds(), 5, "at once when the one before it is gone")
			messages := w.discarded()
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], `"condition":"RecordAgeExceeded"`)
			require.Contains(t, messages[0], `"batchSize":1,`)
			require.Empty(t, w.run(succeed, time.Second))
			require.Empty(t, w.discarded(), "the checkpoint is behind what was discarded")
		})
	})

	t.Run("TakesWhatIsTooOldBeforeTheFirstDelivery", func(t *testing.T) {
		inBubble(t, Config{MaxRecordAge: time.Minute, OnFailure: queueURL}, func(t *testing.T, w *world) {
			w.put(lower, 1, 2)
			time.Sleep(2 * time.Minute)
			w.put(lower, 3)
			require.Equal(t, [][]string{numbered(lower, 3, 3)}, w.run(succeed, time.Second))
			messages := w.discarded()
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], `"batchSize":2,`)
			require.NotContains(t, messages[0], "responseContext")
		})
	})

	t.Run("WaitsForTheQueue", func(t *testing.T) {
		inBubble(t, Config{MaxRetries: new(0), OnFailure: queueURL}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 2)...)
			w.server.Faults().Add(sqsDown())
			require.Len(t, w.run(fail("a/1"), 5*time.Second), 1)
			require.Equal(t, [][]string{numbered(lower, 1, 2)}, w.run(succeed, time.Second), "not discarded before the queue knew")
		})
	})

	t.Run("NeedsNoQueue", func(t *testing.T) {
		inBubble(t, Config{MaxRetries: new(0)}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 2)...)
			require.Len(t, w.run(fail("a/1"), time.Second), 1)
			require.Empty(t, w.run(succeed, time.Second))
			require.Empty(t, w.discarded())
		})
	})
}
