package inbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
)

// releaseHeld holds n events with data of so many bytes, delivers the one that releases them, and returns by how many bytes the heap grew
// at most meanwhile.
func releaseHeld(t testing.TB, pool *pgxpool.Pool, n, size int) (grown uint64) {
	t.Helper()
	ctx := context.Background()
	_, err := pool.Exec(ctx, `INSERT INTO inbox_held (subscriber, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_data,
		traceparent, replay, created_at) SELECT 'tester', 'Car', 'car', n + 1, gen_random_uuid(), 'CarUpdated',
		json_build_object('n', n, 'text', repeat(md5(n::text), $2)), '', '', now() FROM generate_series(1, $1) AS n`, n, size/32)
	require.NoError(t, err)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, at := heap(), int64(0)
	require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := inbox.InOrder(ctx, tx, ordered, event("car", 1), func(_ context.Context, e inbox.Event) error {
			if at++; at != e.Version {
				return fmt.Errorf("version %d in place %d", e.Version, at)
			}
			if at%(int64(n)/10) == 0 {
				now := heap()
				grown = max(grown, now-min(before, now))
			}
			return nil
		})
		return err
	}))
	require.EqualValues(t, n+1, at)
	var left int
	require.NoError(t, pool.QueryRow(ctx, "SELECT count(*) FROM inbox_held").Scan(&left))
	require.Zero(t, left)
	return grown
}

// A long run of held events is applied page by page. All of them together are 20 MB.
func TestAppliedPageByPage(t *testing.T) {
	pool := pgtest.New(t).Pool // not parallel, because other tests would use the same heap
	require.Less(t, releaseHeld(t, pool, 1000, 20_000), uint64(12<<20))
}

// BenchmarkRelease shows that memory and time an event do not grow: -bench Release -benchtime 1000000x.
func BenchmarkRelease(b *testing.B) {
	pool := pgtest.New(b).Pool
	b.ReportMetric(float64(releaseHeld(b, pool, max(b.N, 10), 100))/(1<<20), "heap-MiB")
}

// BenchmarkDelay measures how much later than necessary an event is applied: after it and all before it were delivered. Nothing is lost.
// Four workers get events of 50 aggregates, each up to 200 places, which are four versions, from its own.
func BenchmarkDelay(b *testing.B) {
	for _, way := range []string{"once", "in order"} {
		b.Run(way, func(b *testing.B) {
			pool := pgtest.New(b).Pool
			events := make([]inbox.Event, b.N)
			for i := range events {
				events[i] = event(fmt.Sprint(i%50), int64(i/50+1))
				events[i].ID[0], events[i].ID[1] = byte(i), byte(i>>8) // event repeats its ids after 256 versions
			}
			random := rand.New(rand.NewPCG(22, 5))
			for from := 0; from < len(events); from += 200 {
				window := events[from:min(from+200, len(events))]
				random.Shuffle(len(window), func(i, j int) { window[i], window[j] = window[j], window[i] })
			}
			var mu sync.Mutex
			delivered, applied := map[string][]time.Time{}, map[string][]time.Time{}
			put := func(times map[string][]time.Time, e inbox.Event, at time.Time) {
				mu.Lock()
				defer mu.Unlock()
				for int64(len(times[e.AggregateID])) <= e.Version {
					times[e.AggregateID] = append(times[e.AggregateID], time.Time{})
				}
				times[e.AggregateID][e.Version] = at
			}
			queue := make(chan inbox.Event)
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					for e := range queue {
						put(delivered, e, time.Now())
						var done []inbox.Event
						err := pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
							var err error
							if way == "once" {
								_, err = inbox.Once(context.Background(), tx, inbox.Subscriber{Name: "tester"}, e, func(context.Context, inbox.Verdict) error { done = append(done, e); return nil })
							} else {
								_, err = inbox.InOrder(context.Background(), tx, ordered, e, func(_ context.Context, e inbox.Event) error { done = append(done, e); return nil })
							}
							return err
						})
						if err != nil {
							b.Error(err)
						}
						for _, e := range done {
							put(applied, e, time.Now())
						}
					}
				})
			}
			b.ResetTimer()
			for _, e := range events {
				queue <- e
			}
			close(queue)
			workers.Wait()
			b.StopTimer()
			var delays []time.Duration
			for aggregate, times := range applied {
				possible := time.Time{}
				for version, at := range times[1:] {
					if due := delivered[aggregate][version+1]; way == "once" || due.After(possible) {
						possible = due
					}
					delays = append(delays, at.Sub(possible))
				}
			}
			slices.Sort(delays)
			b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(delays[len(delays)/2].Microseconds())/1000, "p50-ms")
		})
	}
}
