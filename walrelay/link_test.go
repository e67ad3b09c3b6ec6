package walrelay

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

// link is a way to Kinesis with a fixed bandwidth, which the calls that are under way share.
type link struct {
	Kinesis
	mu        sync.Mutex
	more      chan struct{} // capacity 1
	bandwidth float64       // bytes a second
	goesOn    bool          // with calls that nobody waits for, which are in the buffers of a device on the way
	calls     []*transfer
	arrivals  map[string]int
	order     map[string][]string
	times     []time.Time // of first arrivals
	whole     chan struct{}
	wanted    int
}

type transfer struct {
	in   *kinesis.PutRecordsInput
	left int // bytes; guarded by link.mu
	done chan struct{}
	gone <-chan struct{}
}

const (
	linkChunk   = 4 << 10
	linkLatency = 20 * time.Millisecond
)

func (l *link) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	body, err := putBody(in)
	if err != nil {
		return nil, err
	}
	t := &transfer{in: in, left: len(body), done: make(chan struct{}), gone: ctx.Done()}
	l.mu.Lock()
	l.calls = append(l.calls, t)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	wait(ctx, linkLatency)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out := &kinesis.PutRecordsOutput{}
	for range in.Records {
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1")})
	}
	return out, nil
}

// carry sends a piece of each call in turn until ctx ends.
func (l *link) carry(ctx context.Context) {
	for next := 0; ctx.Err() == nil; next++ {
		t, piece, takes := l.piece(next)
		if t == nil {
			select {
			case <-l.more:
			case <-ctx.Done():
			}
			continue
		}
		wait(ctx, takes)
		if l.carried(t, piece) {
			l.arrive(t)
			close(t.done)
		}
	}
}

// piece returns the call whose turn it is, how many of its bytes go next, and how long they take.
// The call is nil when there is none.
func (l *link) piece(turn int) (t *transfer, bytes int, takes time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = slices.DeleteFunc(l.calls, func(t *transfer) bool {
		select {
		case <-t.gone:
			return t.left <= 0 || !l.goesOn
		default:
			return t.left <= 0
		}
	})
	if len(l.calls) == 0 {
		return nil, 0, 0
	}
	t = l.calls[turn%len(l.calls)]
	bytes = min(linkChunk, t.left)
	return t, bytes, time.Duration(float64(bytes) / l.bandwidth * float64(time.Second))
}

// carried reports whether the call is whole now.
func (l *link) carried(t *transfer, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.left -= bytes
	return t.left <= 0
}

func (l *link) arrive(t *transfer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range t.in.Records {
		data := string(r.Data[:20])
		if l.arrivals[data]++; l.arrivals[data] == 1 {
			l.order[*r.PartitionKey] = append(l.order[*r.PartitionKey], data)
			if l.times = append(l.times, time.Now()); len(l.times) == l.wanted {
				close(l.whole)
			}
		}
	}
}

func (l *link) setBandwidth(bandwidth float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bandwidth = bandwidth
}

// onTheWay returns how many bytes of unfinished calls the link has still to carry.
func (l *link) onTheWay() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.calls {
		n += t.left
	}
	return n
}

func (l *link) duplicates() (n int) {
	for _, times := range l.arrivals {
		n += times - 1
	}
	return n
}

// send relays n records of the given size over 4,000 keys, and calls during, which changes the
// link. It returns how long the relay took.
func (l *link) send(n, size int, during func()) time.Duration {
	l.more, l.whole, l.wanted = make(chan struct{}, 1), make(chan struct{}), n
	l.arrivals, l.order = map[string]int{}, map[string][]string{}
	ctx, cancel := context.WithCancel(context.Background())
	p := newPipeline()
	var group sync.WaitGroup
	group.Go(func() { l.carry(ctx) })
	group.Go(func() { sender{l, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.run(ctx, p) })
	started := time.Now()
	group.Go(func() { // the reader, which stops while the pipeline is full
		for i := range n {
			for p.full() && ctx.Err() == nil {
				wait(ctx, 10*time.Millisecond)
			}
			tx := p.begin()
			data := fmt.Appendf(make([]byte, 0, size), "%020d", i)
			p.add(&pending{key: fmt.Sprint("k", i%4000), data: data[:size], transaction: tx})
			p.commit(tx, 1)
		}
	})
	if during != nil {
		during()
	}
	select {
	case <-l.whole:
	case <-time.After(4 * time.Hour): // nothing arrives
	}
	took := time.Since(started)
	cancel()
	group.Wait()
	return took
}

func (l *link) requireInOrder(t *testing.T) {
	t.Helper()
	for key, data := range l.order {
		require.True(t, slices.IsSorted(data), "first arrivals of %s", key)
	}
}

const megabit = 1e6 / 8 // bytes

// Nobody has told the relay how fast the link is.
func TestALinkOfAnyBandwidthIsUsed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		megabits      float64
		records, size int
	}{
		{0.1, 600, 1000}, {2, 10_000, 1000}, {2, 200, 60_000}, {4, 10_000, 1000}, {20, 10_000, 1000}, {200, 40_000, 1000},
	} {
		for _, goesOn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%gMbits/%dBytes/GoesOn=%t", test.megabits, test.size, goesOn), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					l := &link{bandwidth: test.megabits * megabit, goesOn: goesOn}
					took := l.send(test.records, test.size, nil)
					body, err := putBody(&kinesis.PutRecordsInput{Records: []types.PutRecordsRequestEntry{{Data: make([]byte, test.size), PartitionKey: aws.String("k100")}}})
					require.NoError(t, err)
					goodput := float64(len(body)) * float64(len(l.times)) / took.Seconds() / l.bandwidth
					t.Logf("%d of %d records in %s, goodput %.0f %% of the bandwidth, %d came twice", len(l.times), test.records, took, 100*goodput, l.duplicates())
					require.Equal(t, test.records, len(l.times), "records never arrived")
					l.requireInOrder(t)
					require.Greater(t, goodput, 0.8)
					require.LessOrEqual(t, l.duplicates(), test.records/20)
				})
			})
		}
	}
}

func TestALinkThatBecomesSlowIsUsedWhollyWhenItIsFastAgain(t *testing.T) {
	t.Parallel()
	for _, goesOn := range []bool{false, true} {
		t.Run(fmt.Sprintf("GoesOn=%t", goesOn), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const fast, slow, slowFor = 20 * megabit, 2 * megabit, 3 * time.Minute
				l := &link{bandwidth: fast, goesOn: goesOn}
				var slowFrom, fastFrom time.Time
				var onTheWay int // bytes, when the link becomes slow
				l.send(80_000, 1000, func() {
					time.Sleep(5 * time.Second)
					slowFrom = time.Now()
					onTheWay = l.onTheWay()
					l.setBandwidth(slow)
					time.Sleep(slowFor)
					fastFrom = time.Now()
					l.setBandwidth(fast)
				})
				rate := func(from time.Time, d time.Duration) float64 { // share of the link's bandwidth
					n := 0
					for _, at := range l.times {
						if !at.Before(from) && at.Before(from.Add(d)) {
							n++
						}
					}
					return float64(n) * 1360 / d.Seconds()
				}
				// What was on its way when the link became slow goes over it first, and is sent a second
				// time. No relay can change that. So the link is judged after that, and after the first
				// calls with a longer timeout.
				settled := time.Duration(2*float64(onTheWay)/slow)*time.Second + 2*putTimeout
				slowShare := rate(slowFrom.Add(settled), slowFor-settled) / slow
				t.Logf("slow: %.0f %% after %s, fast again: %.0f %%, %d came twice", 100*slowShare, settled,
					100*rate(fastFrom.Add(10*time.Second), 6*time.Second)/fast, l.duplicates())
				require.Less(t, settled, slowFor/2, "the window let more onto the link than it carries in a few seconds")
				require.Greater(t, slowShare, 0.9)
				require.Greater(t, rate(fastFrom.Add(10*time.Second), 6*time.Second), 0.8*fast)
				l.requireInOrder(t)
			})
		})
	}
}
