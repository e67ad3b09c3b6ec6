package walrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/jackc/pglogrepl"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// flakyKinesis accepts, refuses and forgets to answer at random, and watches rule 4 while it does.
type flakyKinesis struct {
	Kinesis
	mu         sync.Mutex
	random     *rand.Rand
	calm       bool // no more faults
	pipeline   *pipeline
	unanswered map[string]bool
	arrived    map[string][]string // partition key -> data in order of arrival
	count      map[string]int      // data -> arrivals
	struck     map[string]int
	violations []error
	sent       []sentRecord
}

type sentRecord struct {
	data string
	end  pglogrepl.LSN // of its transaction; 0 while it is being received
}

func (k *flakyKinesis) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	k.mu.Lock()
	for _, r := range in.Records {
		if k.unanswered[*r.PartitionKey] {
			k.violations = append(k.violations, fmt.Errorf("key %s has two records unanswered", *r.PartitionKey))
		}
		k.unanswered[*r.PartitionKey] = true
	}
	delay := time.Duration(k.random.IntN(20)) * time.Millisecond
	k.mu.Unlock()
	time.Sleep(delay) // in the bubble's time, so that calls overlap
	k.mu.Lock()
	defer k.mu.Unlock()
	k.checkPosition()

	fault := k.random.IntN(10)
	if k.calm {
		fault = 9
	}
	out := &kinesis.PutRecordsOutput{}
	for _, r := range in.Records {
		entry := types.PutRecordsResultEntry{SequenceNumber: aws.String("1")}
		if fault == 0 || fault == 1 && k.random.IntN(2) == 0 {
			k.struck["record refused"]++
			entry = types.PutRecordsResultEntry{ErrorCode: aws.String("ProvisionedThroughputExceededException")}
		} else if fault != 2 {
			k.arrived[*r.PartitionKey] = append(k.arrived[*r.PartitionKey], string(r.Data))
			k.count[string(r.Data)]++
		}
		out.Records = append(out.Records, entry)
		delete(k.unanswered, *r.PartitionKey)
	}
	switch fault {
	case 2:
		k.struck["call refused"]++
		return nil, errors.New("reset before")
	case 3:
		k.struck["answer lost"]++
		return nil, errors.New("reset behind")
	case 4:
		k.struck["answer cut"]++
		out.Records = out.Records[:len(out.Records)-1]
	}
	return out, nil
}

// checkPosition requires that every confirmed record was accepted, whatever else happens.
func (k *flakyKinesis) checkPosition() {
	confirmed := k.pipeline.position()
	for _, s := range k.sent {
		if s.end != 0 && s.end <= confirmed && k.count[s.data] == 0 {
			k.violations = append(k.violations, fmt.Errorf("%s is confirmed (%s <= %s) and was never accepted", s.data, s.end, confirmed))
		}
	}
}

// Kinesis may refuse, lose or cut off any call. Still nothing is lost, the first arrivals of a key are in
// order, no key has two unanswered records, and no commit is confirmed before its records were accepted.
func TestOrderAndPositionHoldUnderAnyFailure(t *testing.T) {
	struck := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		// The records of each transaction, by key. There are few keys, so that lanes fill up. A transaction
		// without keys is a commit without events of ours.
		transactions := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 5), 0, 12), 1, 25).Draw(rt, "transactions")
		var failed error
		synctest.Test(t, func(t *testing.T) { failed = relayThrough(transactions, seed, struck) })
		require.NoError(rt, failed)
	})
	for _, fault := range []string{"record refused", "call refused", "answer lost", "answer cut"} {
		require.NotZero(t, struck[fault], fault)
	}
}

func relayThrough(transactions [][]int, seed uint64, struck map[string]int) error {
	p := newPipeline()
	k := &flakyKinesis{
		random: rand.New(rand.NewPCG(seed, 0)), pipeline: p, struck: struck,
		unanswered: map[string]bool{}, arrived: map[string][]string{}, count: map[string]int{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sender{k, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.run(ctx, p)
	}()
	wanted := map[string][]string{}
	var lsn pglogrepl.LSN
	for i, keys := range transactions {
		tx := p.begin()
		k.mu.Lock()
		first := len(k.sent)
		k.mu.Unlock()
		for j, key := range keys {
			name, data := fmt.Sprint("key", key), fmt.Sprint(i, "/", j)
			k.mu.Lock()
			k.sent = append(k.sent, sentRecord{data: data})
			k.mu.Unlock()
			wanted[name] = append(wanted[name], data)
			p.add(&pending{key: name, data: []byte(data), transaction: tx})
			p.keepalive(lsn + 1) // a keepalive in the middle must not confirm
			if k.random64()%4 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		lsn += 100
		k.mu.Lock()
		for s := first; s < len(k.sent); s++ {
			k.sent[s].end = lsn
		}
		k.mu.Unlock()
		p.commit(tx, lsn)
	}
	time.Sleep(time.Second) // first faults, then no more faults. Every record must arrive.
	k.mu.Lock()
	k.calm = true
	k.mu.Unlock()
	err := p.await(context.Background(), p.empty)
	k.mu.Lock()
	k.checkPosition()
	k.mu.Unlock()
	cancel()
	<-done
	if err != nil {
		return err
	}
	if p.position() != lsn {
		return fmt.Errorf("confirmed %s, the last commit ends at %s", p.position(), lsn)
	}
	for key, want := range wanted {
		var first []string
		seen := map[string]bool{}
		for _, data := range k.arrived[key] {
			if !seen[data] {
				first = append(first, data)
			}
			seen[data] = true
		}
		if fmt.Sprint(first) != fmt.Sprint(want) {
			return fmt.Errorf("%s: first arrivals %v, written %v", key, first, want)
		}
	}
	if p.records != 0 || p.bytes != 0 || len(p.lanes) != 0 || p.first != nil || p.last != nil {
		return fmt.Errorf("left in the pipeline: %d records, %d bytes, %d lanes, %d transactions", p.records, p.bytes, len(p.lanes), p.length())
	}
	return errors.Join(k.violations...)
}

func (k *flakyKinesis) random64() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.random.Uint64()
}

func TestKeepalive(t *testing.T) {
	t.Parallel()

	t.Run("ConfirmsWhenNothingIsOnItsWay", func(t *testing.T) {
		t.Parallel()
		p := newPipeline()
		p.keepalive(7)
		require.EqualValues(t, 7, p.position())
		p.keepalive(5)
		require.EqualValues(t, 7, p.position(), "never backwards")
	})

	t.Run("WaitsForAHalfReceivedTransaction", func(t *testing.T) {
		t.Parallel()
		p := newPipeline()
		tx := p.begin()
		p.keepalive(7)
		require.Zero(t, p.position())
		p.commit(tx, 9)
		require.EqualValues(t, 9, p.position())
	})

	t.Run("WaitsForUnacceptedRecords", func(t *testing.T) {
		t.Parallel()
		p := newPipeline()
		tx := p.begin()
		p.add(&pending{key: "a", data: []byte("1"), transaction: tx})
		p.commit(tx, 9)
		p.keepalive(20)
		require.Zero(t, p.position())
		p.settle(p.take(10, 100), []bool{true})
		require.EqualValues(t, 9, p.position())
	})
}

// A transaction whose records so far are all accepted has no end yet, because its next record may be on its
// way.
func TestHalfATransactionIsNotConfirmed(t *testing.T) {
	t.Parallel()
	p := newPipeline()
	tx := p.begin()
	for range 2 {
		p.add(&pending{key: "a", transaction: tx})
		p.settle(p.take(500, 1<<20), []bool{true})
		require.Zero(t, p.position())
	}
	p.commit(tx, 10)
	require.EqualValues(t, 10, p.position())
}

func TestCommitsWithoutEventsDoNotPileUp(t *testing.T) {
	t.Parallel()
	p := newPipeline()
	tx := p.begin()
	p.add(&pending{key: "a", data: []byte("1"), transaction: tx})
	p.commit(tx, 1)
	for lsn := range pglogrepl.LSN(1000) {
		p.commit(p.begin(), lsn+2)
	}
	require.Equal(t, 1, p.length())
	require.Zero(t, p.position())
	p.settle(p.take(10, 100), []bool{true})
	require.EqualValues(t, 1001, p.position())
}

// length counts the transactions that are received and not confirmed.
func (p *pipeline) length() (n int) {
	for tx := p.first; tx != nil; tx = tx.next {
		n++
	}
	return n
}

// One record is refused for days, while others are accepted. What the pipeline holds must not grow
// with their number.
func TestMemoryIsFlatBehindAStuckRecord(t *testing.T) {
	t.Parallel()
	p := newPipeline()
	deliver := func(key string, end pglogrepl.LSN) *transaction {
		tx := p.begin()
		p.add(&pending{key: key, data: []byte("1"), transaction: tx})
		p.commit(tx, end)
		return tx
	}
	deliver("stuck", 1)
	stuck := p.take(1, 100)
	for lsn := range pglogrepl.LSN(100_000) {
		deliver("other", lsn+2)
		p.settle(p.take(1, 100), []bool{true})
	}
	require.Equal(t, 1, p.length())
	require.Less(t, cap(p.ready), 1000)
	require.Len(t, p.lanes, 1)
	require.Equal(t, 1, p.records)
	require.Zero(t, p.position())

	// Two open transactions keep apart what was accepted between them.
	second := deliver("second", 200_000)
	between := p.take(1, 100)
	deliver("other", 200_001)
	p.settle(p.take(1, 100), []bool{true})
	require.Equal(t, 2, p.length())
	p.settle(stuck, []bool{true})
	require.EqualValues(t, 100_001, p.position())
	require.Same(t, second, p.first)
	p.settle(between, []bool{true})
	require.EqualValues(t, 200_001, p.position())
	require.Zero(t, p.length())
	require.Nil(t, p.last)
}

func TestTakeKeepsTheLimitsOfOneCall(t *testing.T) {
	t.Parallel()
	p := newPipeline()
	for i := range 10 {
		p.add(&pending{key: fmt.Sprint("k", i), data: make([]byte, 98)})
	}
	p.add(&pending{key: "k0", data: []byte("behind")})
	require.Len(t, p.take(3, 1000), 3)
	require.Len(t, p.take(100, 200), 2, "100 bytes each, key included")
	require.Len(t, p.take(100, 50), 1, "a record larger than the limit goes alone")
	require.Len(t, p.take(100, 10_000), 4, "k0's second record waits for the answer to its first")
}

func TestFullAtEitherBound(t *testing.T) {
	t.Parallel()
	many, large := newPipeline(), newPipeline()
	for range maxPendingRecords - 1 {
		many.add(&pending{key: "a"})
	}
	require.False(t, many.full())
	many.add(&pending{key: "a"})
	require.True(t, many.full())
	large.add(&pending{key: "a", data: make([]byte, maxPendingBytes-2)})
	require.False(t, large.full())
	large.add(&pending{key: "b"})
	require.True(t, large.full(), "the key counts, too")
}
