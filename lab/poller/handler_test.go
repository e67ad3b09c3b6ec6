package poller

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Workers and shards invoke at the same time. Each must get the answer to its own event.
func TestConcurrentInvocationsGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	invoke := Handler(func(_ context.Context, n int) (int, error) { return n, nil })
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 500 {
				n := fmt.Sprint(worker*1000 + i)
				answer, err := invoke(t.Context(), []byte(n))
				if err != nil || string(answer) != n {
					t.Errorf("%s was answered with %q, %v", n, answer, err)
					return
				}
			}
		})
	}
	group.Wait()
	require.False(t, t.Failed())
}
