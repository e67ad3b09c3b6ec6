package cdcconsumer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"
)

// fifoBus serves entries one after another at a fixed capacity. It goes on with calls that nobody
// waits for. That makes a slow service collapse, because the retries wait behind them.
type fifoBus struct {
	mu       sync.Mutex
	more     chan struct{} // capacity 1
	capacity float64       // entries a second
	latency  time.Duration // of each call, whatever the load
	queue    []*busCall
	arrivals map[string]int // event id -> times
	order    map[string][]int64
	times    []time.Time // of first arrivals
	deepest  int         // entries in the queue
}

type busCall struct {
	entries []wireEntry
	done    chan struct{}
}

func newFIFOBus(capacity float64) *fifoBus {
	return &fifoBus{more: make(chan struct{}, 1), capacity: capacity, latency: 5 * time.Millisecond,
		arrivals: map[string]int{}, order: map[string][]int64{}}
}

func (f *fifoBus) put(ctx context.Context, _ int, entries []wireEntry) (answer, error) {
	call := &busCall{entries, make(chan struct{})}
	f.mu.Lock()
	f.queue = append(f.queue, call)
	waiting := 0
	for _, c := range f.queue {
		waiting += len(c.entries)
	}
	f.deepest = max(f.deepest, waiting)
	latency := f.latency
	f.mu.Unlock()
	select {
	case f.more <- struct{}{}:
	default:
	}
	if !wait(ctx, latency) {
		return answer{}, ctx.Err()
	}
	select {
	case <-call.done:
		return acceptAll(entries), nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// serve works until ctx ends.
func (f *fifoBus) serve(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.Lock()
		var call *busCall
		if len(f.queue) > 0 {
			call = f.queue[0]
		}
		f.mu.Unlock()
		if call == nil {
			select {
			case <-f.more:
			case <-ctx.Done():
			}
			continue
		}
		for _, e := range call.entries {
			f.mu.Lock()
			capacity := f.capacity
			f.mu.Unlock()
			wait(ctx, time.Duration(float64(time.Second)/capacity))
			f.arrive(e)
		}
		f.mu.Lock()
		f.queue = f.queue[1:]
		f.mu.Unlock()
		close(call.done)
	}
}

func (f *fifoBus) arrive(e wireEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := e.detail()
	if f.arrivals[d.EventID]++; f.arrivals[d.EventID] == 1 {
		f.order[d.AggregateID] = append(f.order[d.AggregateID], d.AggregateVersion)
		f.times = append(f.times, time.Now())
	}
}

func (f *fifoBus) duplicates() (n int) {
	for _, times := range f.arrivals {
		n += times - 1
	}
	return n
}

func (f *fifoBus) setCapacity(capacity float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = capacity
}

// deliver plays the event source mapping of one shard, with a Lambda environment of its own. As in serverless.yml, a batch has 100 records
// and 60 s. After a failure the next batch starts at the lowest failed record.
func (f *fifoBus) deliver(ctx context.Context, records [][]byte) {
	b := newBundle(panicT{}, Config{})
	b.cold()
	b.put = f.put
	whole := batch(records...)
	for from := 0; from < len(whole.Records) && ctx.Err() == nil; {
		records := whole.Records[from:min(from+100, len(whole.Records))]
		invocation, cancel := context.WithTimeout(ctx, 60*time.Second)
		response, err := b.consumer.Handle(invocation, events.KinesisEvent{Records: records})
		cancel()
		switch {
		case err != nil:
			panic(err)
		case len(response.BatchItemFailures) > 0:
			from = place(whole, response.BatchItemFailures[0].ItemIdentifier)
		default:
			from += len(records)
		}
	}
}

// shards makes n events for each shard. One aggregate in thirty events is hot.
func shards(shards, n int) (all [][][]byte) {
	for shard := range shards {
		versions := map[string]int64{}
		var records [][]byte
		for i := range n {
			id := fmt.Sprintf("s%d-%d", shard, i%60)
			if i%30 == 0 {
				id = fmt.Sprintf("s%d-hot", shard)
			}
			versions[id]++
			records = append(records, car(id, versions[id]))
		}
		all = append(all, records)
	}
	return all
}

// run delivers every shard, and calls during, which changes the bus. It returns how long it took
// until the last event was on the bus.
func (f *fifoBus) run(all [][][]byte, during func()) (took time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var server, pollers sync.WaitGroup
	server.Go(func() { f.serve(ctx) })
	started := time.Now()
	for _, records := range all {
		pollers.Go(func() { f.deliver(ctx, records) })
	}
	if during != nil {
		during()
	}
	giveUp := time.AfterFunc(2*time.Hour, cancel) // nothing is ever published
	pollers.Wait()
	giveUp.Stop()
	took = time.Since(started)
	for idle := false; !idle && ctx.Err() == nil; wait(ctx, time.Second) { // what nobody waits for arrives, too
		f.mu.Lock()
		idle = len(f.queue) == 0
		f.mu.Unlock()
	}
	cancel()
	server.Wait()
	return took
}

func (f *fifoBus) requireInOrder(t *testing.T) {
	t.Helper()
	for id, versions := range f.order {
		require.True(t, slices.IsSorted(versions), "first arrivals of %s: %v", id, versions)
	}
}

// Nobody has told the consumer how fast the bus is. Whatever the speed, the bus does little work
// for nothing.
func TestABusOfAnyCapacityIsUsedAndNotFlooded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		capacity       float64
		shards, events int // events of each shard
	}{
		{1, 2, 200}, {2, 2, 300}, {2, 4, 200}, {6, 2, 150}, {6, 2, 900}, {6, 4, 400}, {20, 8, 400}, {50, 2, 1500}, {200, 4, 1500}, {1000, 2, 6000},
	} {
		t.Run(fmt.Sprintf("%gASecondOf%dShards", test.capacity, test.shards), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bus, all := newFIFOBus(test.capacity), shards(test.shards, test.events)
				n := float64(test.shards * test.events)
				took := bus.run(all, nil)
				goodput := n / took.Seconds() / test.capacity
				duplicates := float64(bus.duplicates()) / n
				t.Logf("goodput %.0f %% of the capacity, duplicates %.1f %%, at most %d entries wait", 100*goodput, 100*duplicates, bus.deepest)
				require.Equal(t, int(n), len(bus.arrivals), "lost")
				bus.requireInOrder(t)
				require.Greater(t, goodput, 0.8)
				require.Less(t, duplicates, 0.05)
			})
		})
	}
}

// When the bus becomes slow, a window full of entries is on its way. These entries come twice, and
// no later ones.
func TestABusThatBecomesSlowIsUsedAndIsUsedWhollyWhenItIsFastAgain(t *testing.T) {
	t.Parallel()
	const fast, inFlight = 200.0, 2 * 100
	for _, slow := range []float64{2, 6, 50} {
		t.Run(fmt.Sprintf("%gASecond", slow), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bus := newFIFOBus(fast)
				slowFor := time.Duration(1500 / slow * float64(time.Second))
				var slowFrom, fastFrom time.Time
				bus.run(shards(2, 3250), func() {
					time.Sleep(5 * time.Second)
					slowFrom = time.Now()
					bus.setCapacity(slow)
					time.Sleep(slowFor)
					fastFrom = time.Now()
					bus.setCapacity(fast)
				})
				rate := func(from time.Time, d time.Duration) float64 {
					n := 0
					for _, at := range bus.times {
						if !at.Before(from) && at.Before(from.Add(d)) {
							n++
						}
					}
					return float64(n) / d.Seconds()
				}
				duplicates := bus.duplicates()
				t.Logf("slow: %.1f new events a second of %g; 10 s after it is fast again: %.0f a second; %d came twice",
					rate(slowFrom, slowFor), slow, rate(fastFrom.Add(10*time.Second), 3*time.Second), duplicates)
				bus.requireInOrder(t)
				require.Greater(t, rate(slowFrom, slowFor), 0.8*slow)
				require.Greater(t, rate(fastFrom.Add(10*time.Second), 3*time.Second), 0.8*fast)
				require.LessOrEqual(t, duplicates, inFlight)
			})
		})
	}
}

// A bus that is far away answers late and takes as much as it gets. Fewer calls at a time would
// make it slow.
func TestABusThatAnswersLateIsUsed(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{time.Second, 3 * time.Second, 8 * time.Second} {
		t.Run(latency.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bus := newFIFOBus(10_000)
				bus.latency = latency
				all := shards(2, 3000)
				took := bus.run(all, nil)
				t.Logf("%s for 3,000 events a shard, %d came twice", took, bus.duplicates())
				require.Less(t, bus.duplicates(), 6000/20)
				bus.requireInOrder(t)
				// The three or four events of a batch's hot aggregate go one after the other. The others go beside them.
				require.Less(t, took, 30*6*latency)
			})
		})
	}
}
