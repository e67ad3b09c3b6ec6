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
