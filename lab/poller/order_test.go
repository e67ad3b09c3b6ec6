package poller

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
)

// arrivals is what a function got. It has per key the numbers in the order of their first arrival.
type arrivals map[string][]int

func (a arrivals) add(record string) {
	key, number, _ := strings.Cut(record, "/")
	var n int
	_, _ = fmt.Sscan(number, &n)
	if !slices.Contains(a[key], n) {
		a[key] = append(a[key], n)
	}
}

// check returns what is wrong. Nothing may be missing, and the first arrivals of a key must be in
// order.
func (a arrivals) check(written map[string][]int) (findings []string) {
	for key, numbers := range written {
		for _, n := range numbers {
			if !slices.Contains(a[key], n) {
				findings = append(findings, fmt.Sprintf("lost %s/%d", key, n))
			}
		}
		if !slices.IsSorted(a[key]) {
			findings = append(findings, fmt.Sprintf("%s arrived as %v", key, a[key]))
		}
	}
	return findings
}

// TestOrderPerKey runs random streams through random mappings with functions that fail at random.
func TestOrderPerKey(t *testing.T) {
	t.Parallel()
	keys := []string{"a", "aa", "aaa", "aaaa", "b", "bb", "d"}
	rapid.Check(t, func(rt *rapid.T) {
		config := Config{
			BatchSize:             rapid.IntRange(1, 20).Draw(rt, "batchSize"),
			ParallelizationFactor: rapid.IntRange(1, 10).Draw(rt, "parallelizationFactor"),
			BisectOnError:         rapid.Bool().Draw(rt, "bisectOnError"),
			Window:                time.Duration(rapid.IntRange(0, 2).Draw(rt, "window")) * time.Second,
			PollInterval:          500 * time.Millisecond,
		}
		stream := rapid.SliceOfN(rapid.SampledFrom(keys), 1, 60).Draw(rt, "keys")
		fates := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "partial", "error", "garbage"}), 0, 20).Draw(rt, "fates")
		places := rapid.SliceOfN(rapid.IntRange(0, 19), 1, 9).Draw(rt, "places")
		runs := rapid.SliceOfN(rapid.IntRange(50, 2000), 0, 3).Draw(rt, "runs") // ms until the poller is started again
		var findings []string
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, config, awslocal.Config{})
			written, got := map[string][]int{}, arrivals{}
			for n, key := range stream {
				written[key] = append(written[key], n)
			}
			go func() {
				for n, key := range stream {
					w.put(key, n)
					time.Sleep(time.Duration(n%3) * 30 * time.Millisecond)
				}
			}()
			invocations, under := 0, map[string]int{} // shard -> invocations under way
			judge := func(_ int, d delivery) (string, error) {
				w.mu.Lock()
				invocations++
				n, fate := invocations, ""
				if len(fates) > 0 {
					fate, fates = fates[0], fates[1:]
				}
				shard := d.event.Records[0].EventID[:20]
				if under[shard]++; under[shard] > config.ParallelizationFactor {
					findings = append(findings, "more invocations than the parallelization factor")
				}
				w.mu.Unlock()
				time.Sleep(time.Duration(n%7) * 20 * time.Millisecond)
				w.mu.Lock()
				defer w.mu.Unlock()
				under[shard]--
				upTo := len(d.records)
				if fate != "" {
					upTo = places[n%len(places)] % len(d.records)
				}
				for _, r := range d.records[:upTo] {
					got.add(r)
				}
				switch fate {
				case "partial":
					return d.failing(upTo), nil
				case "error":
					return "", errors.New("scripted")
				case "garbage":
					return "garbage", nil
				}
				return "", nil
			}
			for _, ms := range runs {
				w.run(judge, time.Duration(ms)*time.Millisecond)
			}
			for range 60 {
				if w.run(judge, 2*time.Second); len(got.check(written)) == 0 {
					break
				}
			}
			findings = append(findings, got.check(written)...)
		})
		require.Empty(rt, findings)
	})
}

// TestWrongFunctions shows that the poller is strict enough to tell a right function from wrong ones. Each handles five records an
// invocation, as one does that runs out of time, and answers in its own way.
func TestWrongFunctions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(d delivery, failed []int) events.KinesisEventResponse
		want   string // in a finding
	}{
		"LowestNumberIsRight": {func(d delivery, failed []int) events.KinesisEventResponse {
			return response(d.event.Records[failed[0]].Kinesis.SequenceNumber)
		}, ""},
		"AllNumbersAreRight": {func(d delivery, failed []int) events.KinesisEventResponse {
			var all []string
			for _, place := range failed {
				all = append(all, d.event.Records[place].Kinesis.SequenceNumber)
			}
			return response(all...)
		}, ""},
		// Fails the whole batch each time, so the function never gets the records after the first
		// five.
		"EventIDLoses": {func(d delivery, failed []int) events.KinesisEventResponse {
			return response(d.event.Records[failed[0]].EventID)
		}, "lost a/20"},
		"HighestNumberLoses": {func(d delivery, failed []int) events.KinesisEventResponse {
			return response(d.event.Records[failed[len(failed)-1]].Kinesis.SequenceNumber)
		}, "lost a/10"},
		"ZeroAnswerLoses": {func(delivery, []int) events.KinesisEventResponse {
			return events.KinesisEventResponse{}
		}, "lost a/10"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, w *world) {
				w.put(lower, count(1, 30)...)
				got := arrivals{}
				w.run(func(_ int, d delivery) (string, error) {
					var failed []int
					for place, r := range d.records {
						if place < 5 {
							got.add(r)
						} else {
							failed = append(failed, place)
						}
					}
					if len(failed) == 0 {
						return "", nil
					}
					answer, err := json.Marshal(test.answer(d, failed))
					return string(answer), err
				}, 3*time.Minute)
				findings := got.check(map[string][]int{lower: count(1, 30)})
				if test.want == "" {
					require.Empty(t, findings)
					return
				}
				require.Contains(t, findings, test.want)
			})
		})
	}

	// A function that goes on after a failure of the same key, and answers rightly. The records
	// that it handled early arrive early.
	t.Run("GoingOnReorders", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 3)...)
			got := arrivals{}
			w.run(func(invocation int, d delivery) (string, error) {
				for place, r := range d.records {
					if invocation > 1 || place != 1 {
						got.add(r)
					}
				}
				if invocation > 1 {
					return "", nil
				}
				return d.failing(1), nil
			}, time.Minute)
			require.Equal(t, []string{"a arrived as [1 3 2]"}, got.check(map[string][]int{lower: count(1, 3)}))
		})
	})
}

func response(identifiers ...string) (r events.KinesisEventResponse) {
	for _, id := range identifiers {
		r.BatchItemFailures = append(r.BatchItemFailures, events.KinesisBatchItemFailure{ItemIdentifier: id})
	}
	return r
}
