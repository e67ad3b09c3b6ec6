package awslocal

import (
	"cmp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// In virtual time a long poll ends at the very moment of what ends it, on any machine.
func TestLongPollEndsWithWhatEndsIt(t *testing.T) {
	t.Parallel()
	const after = 3 * time.Second
	for name, tc := range map[string]struct {
		before, during func(s *sqs, q *queue) error
		want           string
		took           time.Duration
	}{
		"MessageArrives": {
			during: func(_ *sqs, q *queue) error { _, err := q.send("one", nil, 0); return err },
			want:   "one", took: after,
		},
		"DelayedMessageArrives": {
			during: func(_ *sqs, q *queue) error { _, err := q.send("one", nil, 2*time.Second); return err },
			want:   "one", took: after + 2*time.Second,
		},
		"MessageIsVisibleAgain": {
			before: func(_ *sqs, q *queue) error {
				_, err := q.send("one", nil, 0)
				return cmp.Or(err, hideAll(q, time.Second))
			},
			want: "one", took: time.Second,
		},
		"MessageIsMadeVisible": {
			before: func(_ *sqs, q *queue) error {
				_, err := q.send("one", nil, 0)
				return cmp.Or(err, hideAll(q, time.Hour))
			},
			during: func(_ *sqs, q *queue) error {
				q.mu.Lock()
				id := q.messages[0].id
				q.mu.Unlock()
				q.setVisible(id, 0)
				return nil
			},
			want: "one", took: after,
		},
		"MessageIsMovedFromAnotherQueue": {
			before: func(s *sqs, _ *queue) error {
				_, err := s.queues["source"].send("one", nil, 0)
				return cmp.Or(err, hideAll(s.queues["source"], time.Second))
			},
			during: func(s *sqs, _ *queue) error { return hideAll(s.queues["source"], time.Second) },
			want:   "one", took: after,
		},
		"Nothing": {took: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s, err := openSQS(Config{
					Dir: dir, Queues: []string{"q", "source"}, Now: time.Now,
					Redrives: map[string]Redrive{"source": {DeadLetterQueue: "q", MaxReceiveCount: 1}},
				}, nil)
				require.NoError(t, err)
				q := s.queues["q"]
				if tc.before != nil {
					require.NoError(t, tc.before(s, q))
				}
				began, failed := time.Now(), make(chan error, 1)
				go func() {
					time.Sleep(after)
					if tc.during != nil {
						failed <- tc.during(s, q)
						return
					}
					failed <- nil
				}()
				messages, err := s.poll(&call{ctx: t.Context()}, q, 1, time.Minute, 20*time.Second)
				took := time.Since(began)
				require.NoError(t, err)
				require.NoError(t, <-failed)
				require.Equal(t, tc.took, took)
				got := ""
				for _, m := range messages {
					got += m.Body
				}
				require.Equal(t, tc.want, got)
				require.NoError(t, s.close())
			})
		})
	}
}

// hideAll receives every message of the queue.
func hideAll(q *queue, visibility time.Duration) error {
	_, _, _, err := q.receive(maxReceive, visibility)
	return err
}
