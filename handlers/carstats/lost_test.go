package carstats_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
)

// Behind the bus 1 % of the deliveries are lost, a third come twice, and each comes up to 100 places from its own. What the subscriber asks
// for is replayed, and a replay is lost as often. The last version of a car is not lost, because nothing shows that it is missing.
func TestOnePercentIsLostBehindTheBus(t *testing.T) {
	t.Parallel()
	const cars, versions = 80, 20
	pool := pgtest.New(t).Pool
	random := rand.New(rand.NewPCG(22, 1))
	bodies := map[string][]string{} // by car, in the order of versions
	var histories [][]fact
	for i := range cars {
		var is []kind
		for range versions {
			is = append(is, kinds[random.IntN(len(kinds))])
		}
		h := history(i%5 == 0, is...)
		histories = append(histories, h)
		for _, f := range h {
			bodies[f.car.String()] = append(bodies[f.car.String()], f.body())
		}
	}
	var queue []string
	delivered, lost := 0, 0
	// deliver is the rule of the bus.
	deliver := func(car string, version int64) {
		copies := 1
		if random.IntN(3) == 0 {
			copies = 2
		}
		for range copies {
			if delivered++; version < versions && random.IntN(100) == 0 {
				lost++
				continue
			}
			queue = append(queue, bodies[car][version-1])
		}
	}
	var asked int
	s, err := carstats.New(carstats.Config{
		Pool: pool, Logger: slog.New(slog.DiscardHandler), InOrder: true, Ordered: inbox.Ordered{AskAfter: time.Nanosecond},
		Ask: func(_ context.Context, m inbox.Missing) error { // the replay
			asked++
			for version := m.First; version <= m.Last; version++ {
				deliver(m.AggregateID, version)
			}
			return nil
		},
	})
	require.NoError(t, err)
	r := &rig{s, pool}
	r.noteTheOrder(t)
	// drain lets four workers empty the queue.
	drain := func() {
		for window := range slices.Chunk(queue, 100) {
			random.Shuffle(len(window), func(i, j int) { window[i], window[j] = window[j], window[i] })
		}
		batches := make(chan []string)
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for bodies := range batches {
					if response, err := r.Handle(ctx, batch(bodies...)); err != nil || len(response.BatchItemFailures) > 0 {
						t.Errorf("a batch: %v %v", failed(response), err)
					}
				}
			})
		}
		for bodies := range slices.Chunk(queue, 10) {
			batches <- bodies
		}
		close(batches)
		workers.Wait()
		queue = nil
	}
	for version := range int64(versions) {
		for _, h := range histories {
			deliver(h[0].car.String(), version+1)
		}
	}
	drain()
	after := r.order(t)
	require.NotZero(t, lost)
	require.NotZero(t, after.held, "a loss holds what follows")
	require.Zero(t, after.misplaced)
	rounds := 0
	for ; r.order(t).held > 0; rounds++ {
		require.Less(t, rounds, 100)
		_, err := r.Handle(ctx, batch()) // the schedule
		require.NoError(t, err)
		drain()
	}
	t.Logf("%d events, %d deliveries, %d of them lost; %d events held before the first question, %d ranges asked for in %d rounds; all counted, in order, none twice",
		cars*versions, delivered, lost, after.held, asked, rounds)
	require.Equal(t, order{events: cars * versions}, r.order(t))
	require.Equal(t, expected(histories), r.totals(t))
}
