package walrelay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

func TestARefusalForGoodEndsTheSenders(t *testing.T) {
	t.Parallel()
	p := newPipeline()
	p.add(&pending{key: "a", data: []byte("1")})
	sender{refusing{}, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.run(t.Context(), p)
	require.ErrorContains(t, p.await(t.Context(), p.empty), "ResourceNotFoundException")
	p.close(nil)
	require.ErrorContains(t, p.failure(), "ResourceNotFoundException", "the first reason stays")
}

type refusing struct{ Kinesis }

func (refusing) PutRecords(context.Context, *kinesis.PutRecordsInput, ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	return nil, &types.ResourceNotFoundException{}
}

// answering is a Kinesis whose answers are a function of the call's number.
type answering struct {
	Kinesis
	mu     sync.Mutex
	calls  int
	sent   []string // data of every record
	answer func(call int, in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error)
}

func (k *answering) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	for _, r := range in.Records {
		k.sent = append(k.sent, string(r.Data))
	}
	return k.answer(k.calls, in)
}

func acceptedAll(in *kinesis.PutRecordsInput) *kinesis.PutRecordsOutput {
	out := &kinesis.PutRecordsOutput{}
	for range in.Records {
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1")})
	}
	return out
}

// outage is how long a Kinesis of recovering is in trouble.
const outage = 30 * time.Minute

// recovering returns a Kinesis that is in trouble until a time, and then accepts everything.
func recovering(trouble func(in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error)) (k *answering, until time.Time) {
	until = time.Now().Add(outage)
	return &answering{answer: func(_ int, in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
		if time.Now().Before(until) {
			return trouble(in)
		}
		return acceptedAll(in), nil
	}}, until
}

// sendInBackground sends the pipeline's records until stop is called.
func sendInBackground(t *testing.T, k Kinesis, p *pipeline) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() { sender{k, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.run(ctx, p) })
	return func() {
		cancel()
		sending.Wait()
	}
}

// A refusal of the relay may pass, within seconds after a deployment, or later when somebody mends
// the cause.
func TestARefusalOfTheRelayIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, code := range refusals {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k, until := recovering(func(*kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
					return nil, &smithy.GenericAPIError{Code: code}
				})
				p := newPipeline()
				tx := p.begin()
				for i := range 9 {
					p.add(&pending{key: fmt.Sprint("k", i%3), data: []byte(fmt.Sprint(i)), transaction: tx})
				}
				p.commit(tx, 7)
				stop := sendInBackground(t, k, p)
				time.Sleep(outage - time.Second)
				require.NoError(t, p.failure())
				require.Equal(t, "Kinesis answers "+code, p.hindrance())
				require.Zero(t, p.position())
				k.mu.Lock()
				require.Less(t, k.calls, senders*40, "it waits for minutes")
				k.sent = nil
				k.mu.Unlock()
				require.NoError(t, p.await(t.Context(), p.empty))
				require.Less(t, time.Since(until), maxRefusedBackoff)
				require.Empty(t, p.hindrance())
				require.EqualValues(t, 7, p.position())
				stop()
				for key := range 3 {
					require.Less(t, slices.Index(k.sent, fmt.Sprint(key)), slices.Index(k.sent, fmt.Sprint(key+3)))
					require.Less(t, slices.Index(k.sent, fmt.Sprint(key+3)), slices.Index(k.sent, fmt.Sprint(key+6)))
				}
			})
		})
	}
}

// A network that leads nowhere and a service in trouble refuse the relay by no code. A relay that gets nothing onto the stream must not
// count as one that works, because the alarm on silent relays is the one that comes soon.
func TestARelayWhoseRecordsNobodyTakesSaysSo(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error){
		"Unreachable": func(*kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
		},
		"EveryRecordFails": func(in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
			return &kinesis.PutRecordsOutput{Records: slices.Repeat([]types.PutRecordsResultEntry{{ErrorCode: aws.String("InternalFailure")}}, len(in.Records))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k, until := recovering(trouble)
				p := newPipeline()
				stop := sendInBackground(t, k, p)
				time.Sleep(outage / 2) // nothing waits, so nothing is amiss
				require.Empty(t, p.hindrance())
				p.add(&pending{key: "car", data: []byte("1")})
				time.Sleep(stuckAfter - time.Second)
				require.Empty(t, p.hindrance())
				time.Sleep(time.Second)
				require.Equal(t, "Kinesis has accepted nothing for 2m0s (1 records wait)", p.hindrance())
				time.Sleep(time.Until(until) + maxBackoff)
				require.NoError(t, p.await(t.Context(), p.empty))
				require.Empty(t, p.hindrance())
				stop()
			})
		})
	}
}

func TestWhatProvesThatARecordIsOnTheStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		entry types.PutRecordsResultEntry
		want  bool
	}{
		"SequenceNumber":             {types.PutRecordsResultEntry{SequenceNumber: aws.String("1")}, true},
		"SequenceNumberAndEmptyCode": {types.PutRecordsResultEntry{SequenceNumber: aws.String("1"), ErrorCode: aws.String("")}, true},
		"SequenceNumberAndCode":      {types.PutRecordsResultEntry{SequenceNumber: aws.String("1"), ErrorCode: aws.String("InternalFailure")}, false},
		"Code":                       {types.PutRecordsResultEntry{ErrorCode: aws.String("InternalFailure")}, false},
		"EmptyCode":                  {types.PutRecordsResultEntry{ErrorCode: aws.String("")}, false},
		"EmptySequenceNumber":        {types.PutRecordsResultEntry{SequenceNumber: aws.String("")}, false},
		"Nothing":                    {types.PutRecordsResultEntry{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &answering{answer: func(int, *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
				return &kinesis.PutRecordsOutput{Records: []types.PutRecordsResultEntry{test.entry}}, nil
			}}
			p := newPipeline()
			p.add(&pending{key: "a", data: []byte("1")})
			accepted, err := sender{k, "stream", "slot", slog.New(slog.DiscardHandler), &sequences{}}.put(t.Context(), p, p.take(1, 100))
			require.NoError(t, err)
			require.Equal(t, []bool{test.want}, accepted)
		})
	}
}
