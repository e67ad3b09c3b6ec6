package outboxctl

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// link carries so many bytes a second.
type link struct {
	bandwidth float64
	arrived   int
}

func (l *link) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	bytes, out := 0, &kinesis.PutRecordsOutput{}
	for _, r := range in.Records {
		bytes += len(r.Data) * 4 / 3 // base64
		// Some clients of the service send an empty code with a success.
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1"), ErrorCode: aws.String("")})
	}
	select {
	case <-time.After(time.Duration(float64(bytes) / l.bandwidth * float64(time.Second))):
		l.arrived += len(in.Records)
		return out, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// An operator may replay and redrive large events over a slow link.
func TestPutUsesASlowLink(t *testing.T) {
	t.Parallel()
	for _, megabits := range []float64{0.1, 2, 20} {
		t.Run(fmt.Sprintf("%gMbits", megabits), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const size, n = 60_000, 300
				l := &link{bandwidth: megabits * 1e6 / 8}
				p := &putter{client: l, stream: "s", window: newPutWindow(), perCall: maxPutRecords, pause: time.Millisecond, patience: time.Minute}
				var records []*outgoing
				for i := range n {
					records = append(records, &outgoing{key: fmt.Sprint(i), data: make([]byte, size)})
				}
				started := time.Now()
				require.NoError(t, p.put(t.Context(), records))
				require.Equal(t, n, l.arrived)
				atBest := time.Duration(n * size * 4 / 3 / l.bandwidth * float64(time.Second))
				require.Less(t, time.Since(started), atBest*5/4)
			})
		})
	}
}

// failing accepts nothing. Its calls fail with err, or with entry for each record.
type failing struct {
	err   error
	entry types.PutRecordsResultEntry
	calls int
}

func (f *failing) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	f.calls++
	out := &kinesis.PutRecordsOutput{}
	for range in.Records {
		out.Records = append(out.Records, f.entry)
	}
	return out, f.err
}

func TestPutGivesUp(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		failing
		atOnce bool
	}{
		"AtOnceWhereNoRetryHelps": {failing{err: &types.ResourceNotFoundException{}}, true},
		"AfterItsPatience":        {failing{err: &smithy.GenericAPIError{Code: "InternalFailure"}}, false},
		"AlsoWithSingleRecords":   {failing{entry: types.PutRecordsResultEntry{ErrorCode: aws.String("InternalFailure")}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &putter{client: &tc.failing, stream: "s", window: newPutWindow(), perCall: maxPutRecords, patience: time.Minute}
				records := []*outgoing{{key: "a", data: []byte("1")}, {key: "a", data: []byte("2")}}
				started := time.Now()
				require.Error(t, p.put(t.Context(), records))
				require.False(t, records[0].sent)
				if tc.atOnce {
					require.Equal(t, 1, tc.calls)
					return
				}
				require.Greater(t, tc.calls, 10)
				require.Greater(t, time.Since(started), time.Minute)
			})
		})
	}
}

// script answers its first call with entries, and accepts every later one.
type script struct {
	entries []types.PutRecordsResultEntry
	calls   []string // the data of each call's records
	at      []time.Time
}

func (s *script) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	call, out := "", &kinesis.PutRecordsOutput{}
	for _, r := range in.Records {
		call += string(r.Data) + " "
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1")})
	}
	if len(s.calls) == 0 {
		out.Records = s.entries
	}
	s.calls, s.at = append(s.calls, call), append(s.at, time.Now())
	return out, nil
}

// What does not prove that a record is on the stream is sent again after a pause, and before its
// successor.
func TestPutSendsAgainWhatWasNotProven(t *testing.T) {
	t.Parallel()
	yes := types.PutRecordsResultEntry{SequenceNumber: aws.String("1")}
	for name, tc := range map[string]struct {
		entries []types.PutRecordsResultEntry
		calls   []string
	}{
		"CodeBesideASequenceNumber": {[]types.PutRecordsResultEntry{{SequenceNumber: aws.String("1"), ErrorCode: aws.String("InternalFailure")}, yes}, []string{"a1 b1 ", "a1 ", "a2 "}},
		"Nothing":                   {[]types.PutRecordsResultEntry{{}, yes}, []string{"a1 b1 ", "a1 ", "a2 "}},
		"EmptySequenceNumber":       {[]types.PutRecordsResultEntry{{SequenceNumber: aws.String("")}, yes}, []string{"a1 b1 ", "a1 ", "a2 "}},
		"FewerEntriesThanRecords":   {[]types.PutRecordsResultEntry{yes}, []string{"a1 b1 ", "a1 b1 ", "a2 "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &script{entries: tc.entries}
				p := &putter{client: s, stream: "s", window: newPutWindow(), perCall: maxPutRecords, patience: time.Minute}
				records := []*outgoing{{key: "a", data: []byte("a1")}, {key: "a", data: []byte("a2")}, {key: "b", data: []byte("b1")}}
				require.NoError(t, p.put(t.Context(), records))
				require.Equal(t, tc.calls, s.calls)
				require.GreaterOrEqual(t, s.at[1].Sub(s.at[0]), minBackoff/2)
			})
		})
	}
}
