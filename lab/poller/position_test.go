package poller

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

func TestPosition(t *testing.T) {
	t.Parallel()

	t.Run("ContinuesAtTheCheckpoint", func(t *testing.T) {
		inBubble(t, Config{BatchSize: 2}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 3)...)
			require.Equal(t, [][]string{numbered(lower, 1, 2), numbered(lower, 3, 3)}, w.run(succeed, time.Second))
			w.put(lower, count(4, 6)...)
			// The first batch is done, the second is under way when the run ends.
			require.Equal(t, [][]string{numbered(lower, 4, 5), numbered(lower, 6, 6)}, w.run(func(invocation int, _ delivery) (string, error) {
				if invocation == 2 {
					return "", errors.New("scripted")
				}
				return "", nil
			}, 50*time.Millisecond))
			require.Equal(t, [][]string{numbered(lower, 6, 6)}, w.run(succeed, time.Second))
			require.Empty(t, w.run(succeed, time.Second))
		})
	})

	t.Run("ContinuesAtAPartialAnswer", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, count(1, 5)...)
			w.run(func(_ int, d delivery) (string, error) { return d.failing(2), nil }, 50*time.Millisecond)
			require.Equal(t, [][]string{numbered(lower, 3, 5)}, w.run(succeed, time.Second))
		})
	})

	t.Run("IsNeverBehindAnInvocationUnderWay", func(t *testing.T) {
		inBubble(t, Config{BatchSize: 3, ParallelizationFactor: 4}, func(t *testing.T, w *world) {
			for n := range 40 {
				w.put([]string{"a", "aa", "aaa", "aaaa"}[n%4], n)
			}
			done := map[string]bool{}
			w.run(func(_ int, d delivery) (string, error) {
				time.Sleep(time.Duration(len(d.records[0])) * time.Second) // lanes end in any order
				// kill -9 now. What the file says must be done.
				again := w.restOf(t, w.config.CheckpointFile)
				w.mu.Lock()
				defer w.mu.Unlock()
				for n := range 40 {
					r := numbered([]string{"a", "aa", "aaa", "aaaa"}[n%4], n, n)[0]
					if !done[r] && !again[r] {
						t.Errorf("%s is neither done nor above the checkpoint", r)
					}
				}
				for _, r := range d.records {
					done[r] = true
				}
				return "", nil
			}, time.Minute)
			require.Len(t, done, 40)
			require.Empty(t, w.restOf(t, w.config.CheckpointFile))
		})
	})

	t.Run("FallsBackToTheHorizon", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			w.run(succeed, time.Second)
			w.put(lower, 2)
			time.Sleep(169 * time.Hour) // the stream keeps 168
			w.put(lower, 3)
			require.Equal(t, [][]string{numbered(lower, 3, 3)}, w.run(succeed, time.Second))
		})
	})

	t.Run("FallsBackToTheHorizonOfAStreamMadeAnew", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.put(lower, 1)
			w.run(succeed, time.Second)
			w.close()
			w.conf.Dir = t.TempDir()
			time.Sleep(time.Hour)
			w.open()
			w.put(lower, 2)
			require.Equal(t, [][]string{numbered(lower, 2, 2)}, w.run(succeed, time.Second))
		})
	})

	t.Run("NeedsAReadableFileOfTheStream", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, w *world) {
			w.config.Function = w.function(succeed)
			require.NoError(t, os.WriteFile(w.config.CheckpointFile, []byte("{"), 0o600))
			_, err := New(w.config)
			require.ErrorContains(t, err, "delete the file")
			require.NoError(t, os.WriteFile(w.config.CheckpointFile, []byte(`{"stream":"other","shards":{}}`), 0o600))
			_, err = New(w.config)
			require.ErrorContains(t, err, "is of stream other")
			w.config.CheckpointFile = "/nowhere/checkpoints.json"
			_, err = New(w.config)
			require.ErrorContains(t, err, "CheckpointFile")
		})
	})
}

// restOf reads what a poller that starts with this checkpoint file would get.
func (w *world) restOf(t *testing.T, file string) map[string]bool {
	c, err := openCheckpoints(file, "outbox")
	require.NoError(t, err)
	in := &kinesis.GetShardIteratorInput{
		StreamName: aws.String("outbox"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: "TRIM_HORIZON",
	}
	if at := c.get("shardId-000000000000").SequenceNumber; at != "" {
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &at
	}
	iterator, err := w.kinesis.GetShardIterator(context.Background(), in)
	require.NoError(t, err)
	out, err := w.kinesis.GetRecords(context.Background(), &kinesis.GetRecordsInput{ShardIterator: iterator.ShardIterator})
	require.NoError(t, err)
	rest := map[string]bool{}
	for _, r := range out.Records {
		rest[*r.PartitionKey+"/"+string(r.Data)] = true
	}
	return rest
}
