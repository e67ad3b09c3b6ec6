package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

var errGone = errors.New("sim: connection reset")

// record is one record on the stream.
type record struct {
	sequence string
	key      string
	data     []byte
	arrival  time.Time
}

// stream is Kinesis with two shards. world.mu guards it.
type stream struct {
	shards   [2][]record
	read     [2]int // how many records are before Lambda's checkpoint
	sequence int
}

// accept appends a record to its shard. The caller holds mu.
func (w *world) accept(key string, data []byte) (sequence string) {
	h := fnv.New32a()
	h.Write([]byte(key))
	shard := h.Sum32() % 2
	w.stream.sequence++
	sequence = fmt.Sprintf("4%020d", w.stream.sequence)
	w.stream.shards[shard] = append(w.stream.shards[shard], record{sequence, key, data, time.Now()})
	w.note("stream %d has %s of %s", shard, hash(data), key)
	w.changed.Broadcast()
	return sequence
}

// streamIsRead reports whether Lambda's checkpoints are at the end. The caller holds mu.
func (w *world) streamIsRead() bool {
	for shard, records := range w.stream.shards {
		if w.stream.read[shard] < len(records) {
			return false
		}
	}
	return true
}

// kinesisOf is Kinesis as a relay's process reaches it.
type kinesisOf struct {
	*world
	*process
}

func (k kinesisOf) DescribeStreamSummary(ctx context.Context, _ *kinesis.DescribeStreamSummaryInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return &kinesis.DescribeStreamSummaryOutput{}, k.wait(ctx, k.delay(time.Millisecond, 5*time.Millisecond, "describe"), k.process)
}

// wait returns an error if the process or ctx ends first.
func (w *world) wait(ctx context.Context, d time.Duration, p *process) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.gone:
		return errGone
	}
}

// effect is what a fault does to a call. Where it says nothing, the call arrives and is answered.
type effect struct {
	before     bool  // it never arrives
	half       bool  // it arrives or not
	kill       bool  // its process ends
	lost       bool  // its answer never comes
	err        error // its answer
	late, slow span  // when it arrives, then without an answer, or when its answer comes
}

type span struct{ from, to time.Duration }

// carry carries a request to a model and its answer back. A request arrives even if its caller has given up or is dead, unless it is
// lost on the way. arrives does the work. It gets the kind of the fault that struck the call. A process that is dead sends nothing more.
// Its goroutines run on for the instant of its death, in any order.
func carry[T any](ctx context.Context, w *world, p *process, tag string, faults map[Kind]effect, arrives func(Kind) T) (T, error) {
	type reply struct {
		answer T
		err    error
	}
	w.mu.Lock()
	dead := p.dead
	w.mu.Unlock()
	if dead {
		var none T
		return none, errGone
	}
	replies := make(chan reply, 1)
	time.AfterFunc(w.delay(500*time.Microsecond, 15*time.Millisecond, "to", tag), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if p.dead && w.draw("lost", tag)%2 == 0 {
			return
		}
		fault, _ := w.strike(slices.Collect(maps.Keys(faults))...)
		var r reply
		f, after := faults[fault.Kind], w.delay(500*time.Microsecond, 15*time.Millisecond, "back", tag)
		f.before = f.before || f.half && w.draw("reset", tag)%2 == 0
		switch {
		case f.late.to > 0:
			time.AfterFunc(w.delay(f.late.from, f.late.to, "late", tag), func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				arrives("")
			})
			return
		case !f.before:
			r.answer = arrives(fault.Kind)
		}
		switch {
		case f.kill && f.before:
			w.end(p, p.name+" killed before its call arrives")
		case f.kill:
			w.end(p, p.name+" killed before the answer comes")
		case f.slow.to > 0:
			after = w.delay(f.slow.from, f.slow.to, "slow", tag)
		case f.err != nil:
			r = reply{err: f.err}
		}
		if !f.kill && !f.lost {
			time.AfterFunc(after, func() { replies <- r })
		}
	})
	select {
	case r := <-replies:
		return r.answer, r.err
	case <-ctx.Done():
		select {
		case <-p.gone: // a kill ends both, and select takes any of them
		default:
			// Calls that began together would all end at one instant.
			time.Sleep(w.delay(time.Microsecond, time.Millisecond, "given up", tag))
		}
		var none T
		return none, ctx.Err()
	case <-p.gone:
		var none T
		return none, errGone
	}
}

var putFaults = map[Kind]effect{
	KillBeforePut: {before: true, kill: true},
	KillAfterPut:  {kill: true},
	RefuseRecords: {},
	ThrottlePut:   {before: true, err: &smithy.GenericAPIError{Code: "LimitExceededException"}},
	DenyPut:       {before: true, err: &smithy.GenericAPIError{Code: "AccessDeniedException"}},
	ResetPut:      {half: true, err: errGone},
	LosePut:       {lost: true},
	LatePut:       {late: span{11 * time.Second, 14 * time.Second}},
	SlowPut:       {slow: span{time.Second, 8 * time.Second}},
}

// PutRecords answers as Kinesis does. The records behind a refused one are still accepted.
func (k kinesisOf) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	tag := aws.ToString(in.Records[0].PartitionKey) + hash(in.Records[0].Data)
	return carry(ctx, k.world, k.process, tag, putFaults, func(fault Kind) *kinesis.PutRecordsOutput { return k.put(in, fault) })
}

// put stores the records of a call. The caller holds mu.
func (k kinesisOf) put(in *kinesis.PutRecordsInput, fault Kind) *kinesis.PutRecordsOutput {
	out := &kinesis.PutRecordsOutput{FailedRecordCount: aws.Int32(0)}
	for i, r := range in.Records {
		key := aws.ToString(r.PartitionKey)
		if fault == RefuseRecords && (i == 0 || k.draw("refuse", key)%2 == 0) {
			k.note("stream refuses %s of %s", hash(r.Data), key)
			out.Records = append(out.Records, types.PutRecordsResultEntry{ErrorCode: aws.String("ProvisionedThroughputExceededException")})
			*out.FailedRecordCount++
			continue
		}
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String(k.accept(key, r.Data))})
	}
	return out
}
