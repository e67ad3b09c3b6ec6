package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/poller"
	"rds-outbox-demo/outbox"
)

// A record that did not fit the message comes from the stream or, when that has forgotten it, from its row.
func TestRedriveOfATruncatedRecord(t *testing.T) {
	t.Parallel()
	truncated := func(shard, sequence string, size int) func(*cdcconsumer.ParkedRecord) {
		return func(p *cdcconsumer.ParkedRecord) {
			p.ShardID, p.SequenceNumber, p.Data, p.Size, p.Truncated = shard, sequence, p.Data[:20], size, true
		}
	}

	t.Run("TakesItFromTheStream", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		big := []byte(strings.Repeat("x", 300<<10))
		r.onto(t, "a", []byte("before"))
		shard, sequence := r.onto(t, "a", big)
		r.onto(t, "a", []byte("after"))
		r.parkEvent(t, e, 0, truncated(shard, sequence, len(big)), func(p *cdcconsumer.ParkedRecord) { p.EventID = "" })
		require.Zero(t, r.run(t, "redrive", "--all").code)
		all := r.streamed(t)
		require.Len(t, all, 4)
		require.Equal(t, big, all[3].Data)
		require.Equal(t, "0+0", r.depth(t, r.setup.FailureQueue))
	})

	for name, tc := range map[string]struct {
		edit func(*cdcconsumer.ParkedRecord)
		code int
		says string
	}{
		"OrFromItsRow":           {func(*cdcconsumer.ParkedRecord) {}, 0, ""},
		"OrSaysThatTheRowIsGone": {func(p *cdcconsumer.ParkedRecord) { p.EventID = "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12" }, 1, "its row is gone"},
		"OrThatItWasNoEvent":     {func(p *cdcconsumer.ParkedRecord) { p.EventID = "" }, 1, "outboxctl replay"},
		"OrThatTheStreamIsAnother": {func(p *cdcconsumer.ParkedRecord) {
			p.EventID, p.StreamARN = "", strings.Replace(p.StreamARN, testStream, "former", 1)
		}, 1, `it was on stream "former"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hours := newHours()
			r := newRig(t, hours.set)
			e := event("a", 1)
			r.commit(t, e)
			shard, sequence := r.onto(t, "a", []byte("big"))
			hours.pass(169)
			r.parkEvent(t, e, 0, truncated(shard, sequence, 100_000), tc.edit)
			result := r.run(t, "redrive", "--all")
			require.Equal(t, tc.code, result.code, "%s\n%s", result.out, result.err)
			require.Contains(t, result.out, tc.says)
			if tc.code == 0 {
				all := r.streamed(t)
				require.Len(t, all, 1)
				got, want := r.without(t, all[0].Data), r.recordWithout(t, e)
				want.Operation = outbox.OperationLoad
				require.Equal(t, want, got)
				require.Equal(t, "0+0", r.depth(t, r.setup.FailureQueue))
				return
			}
			require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))
		})
	}
}

// hours is a clock that a test moves on, for what expires.
type hours struct{ now chan time.Time }

func newHours() *hours {
	h := &hours{now: make(chan time.Time, 1)}
	h.now <- time.Now()
	return h
}

func (h *hours) set(c *awslocal.Config) {
	offset := time.Now()
	c.Now = func() time.Time {
		base := <-h.now
		h.now <- base
		return base.Add(time.Since(offset)) // goes on, or a receiver that waits would wait for ever
	}
}

func (h *hours) pass(n int) {
	base := <-h.now
	h.now <- base.Add(time.Duration(n) * time.Hour)
}

// Lambda gives records up and says where they are, not what they are.
func TestRedriveOfDiscardedRecords(t *testing.T) {
	t.Parallel()
	discard := func(t *testing.T, r *path, events ...outbox.Event) {
		t.Helper()
		stop := r.consume(t, func(c *poller.Config) {
			retries := 0
			c.MaxRetries, c.OnFailure = &retries, r.setup.DiscardQueue
			c.Function = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("down") }
		})
		r.commit(t, events...)
		last := map[string]string{} // by shard
		for _, e := range events {
			shard, sequence := r.onto(t, e.AggregateID, r.recordOf(t, e))
			last[shard] = sequence
		}
		r.eventually(t, "the records given up", func() bool {
			n := 0
			for _, m := range decode[redriveListing](t, r.run(t, "redrive", "list", "--json")).Messages {
				n += m.BatchSize
			}
			return n == len(events)
		})
		// A consumer that ends before its checkpoint leads past them would get them again.
		r.eventually(t, "a checkpoint behind them", func() bool {
			checkpoint, err := os.ReadFile(r.checkpoint)
			require.NoError(t, err)
			for _, sequence := range last {
				if !strings.Contains(string(checkpoint), sequence) {
					return false
				}
			}
			return true
		})
		stop()
	}

	t.Run("TakesThemFromTheStream", func(t *testing.T) {
		t.Parallel()
		r := newPath(t)
		events := []outbox.Event{event("a", 1), event("a", 2), event("a", 3), event("b", 1)}
		discard(t, r, events...)
		list := r.run(t, "redrive", "list")
		require.Contains(t, list.out, "discarded    ")
		require.Contains(t, list.out, "RetryAttemptsExhausted after 1 invocations")
		show := decode[redriveListing](t, r.run(t, "redrive", "list", "--json"))
		require.Contains(t, r.run(t, "redrive", "show", show.Messages[0].MessageID).out, `{\"version\": `)

		r.consume(t) // from behind them
		result := r.run(t, "redrive", "--reason", "discarded")
		require.Zero(t, result.code, "%s\n%s", result.out, result.err)
		require.Contains(t, result.lastLine(), "redriven: 4 records of ")
		for _, e := range events {
			r.eventually(t, "the event on the bus", func() bool { return len(r.arrived(t, e)) == 1 })
		}
		require.Equal(t, append(upTo(3), upTo(3)...), r.versions(t, "a", ""))
		require.Equal(t, "0+0", r.depth(t, r.setup.DiscardQueue))
	})

	t.Run("OrNamesTheRepairWhenTheStreamHasForgottenThem", func(t *testing.T) {
		t.Parallel()
		hours := newHours()
		r := newPath(t, hours.set)
		e := event("a", 1)
		discard(t, r, e)
		hours.pass(169)
		r.onto(t, "a", []byte("newer")) // reading from the old place gets this one
		result := r.run(t, "redrive", "--all")
		require.Equal(t, 1, result.code)
		require.Contains(t, result.out, "the stream no longer has it, and the message has no payload: outboxctl replay --from 20")
		require.Equal(t, "1+0", r.depth(t, r.setup.DiscardQueue))
		require.Empty(t, r.versions(t, "a", ""))

		// The repair that it names is one.
		var from, to string
		_, tail, _ := strings.Cut(result.out, "outboxctl replay --from ")
		_, err := fmt.Sscanf(tail, "%s --to %s", &from, &to)
		require.NoError(t, err)
		r.startRelayTo(t, elsewhere) // a replay waits for the slot
		require.Zero(t, r.run(t, "replay", "--from", from, "--to", to).code)
		require.Equal(t, upTo(1), r.versions(t, "a", ""))
	})

	t.Run("WarnsOfWhatLiesBetweenThem", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		shard, start := r.onto(t, "a", r.recordOf(t, e))
		r.onto(t, "a", []byte("of another lane"))
		_, end := r.onto(t, "a", []byte("last"))
		r.send(t, r.setup.DiscardQueue, fmt.Sprintf(`{"requestContext":{"condition":"RecordAgeExceeded"},"KinesisBatchInfo":{"shardId":%q,
			"startSequenceNumber":%q,"endSequenceNumber":%q,"batchSize":2,"streamArn":"arn:aws:kinesis:us-east-1:000000000000:stream/outbox",
			"approximateArrivalOfFirstRecord":"2026-11-23T09:15:00.123Z","approximateArrivalOfLastRecord":"2026-11-23T09:15:00.123Z"}}`, shard, start, end))
		result := r.run(t, "redrive", "--all")
		require.Zero(t, result.code, result.err)
		require.Contains(t, result.err, "2 records were discarded and 1 others lie between them")
		require.Len(t, r.streamed(t), 6)
	})
}
