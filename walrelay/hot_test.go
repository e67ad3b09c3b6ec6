package walrelay

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

const hotRoundTrip = 10 * time.Millisecond

// distant answers after hotRoundTrip.
type distant struct {
	Kinesis
	calls time.Duration // what all calls took
}

func (d *distant) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	started := time.Now()
	wait(ctx, hotRoundTrip)
	d.calls += time.Since(started) // no lock, because rule 4 allows one call of a key at a time
	return acceptedAll(in), nil
}

// relayHot relays n records of one key. It returns what that took, and what the calls took of it.
func relayHot(tb testing.TB, n int) (took, calls time.Duration) {
	ctx, cancel := context.WithCancel(tb.Context())
	p, k, done := newPipeline(), &distant{}, make(chan struct{})
	go func() {
		defer close(done)
		sender{k, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.run(ctx, p)
	}()
	started := time.Now()
	tx := p.begin()
	for range n {
		p.add(&pending{key: "hot", data: []byte("{}"), transaction: tx})
	}
	p.commit(tx, 1)
	require.NoError(tb, p.await(ctx, p.empty))
	took = time.Since(started)
	cancel()
	<-done
	return took, k.calls
}

// Rule 4 allows one unanswered record of a key, so a hot key takes a round trip a record, and no more.
func TestAHotKeyTakesOneRoundTripARecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		took, _ := relayHot(t, 1000)
		require.Equal(t, 1000*hotRoundTrip, took)
	})
}

// BenchmarkHotAggregate relays the records of one key, 10 ms a call. The limit is one call after another.
func BenchmarkHotAggregate(b *testing.B) {
	took, calls := relayHot(b, b.N)
	b.ReportMetric(float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/calls.Seconds(), "limit-events/s")
}
