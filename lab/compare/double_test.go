package compare_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// maxPutRecords is Kinesis's limit, and the size of every call of the projects that are named in docs/compare.md.
const maxPutRecords = 500

type (
	entry  = types.PutRecordsRequestEntry
	answer = types.PutRecordsResultEntry
)

// strategy is how a relay reacts to the answer of one call of PutRecords.
type strategy struct {
	name string
	// again returns what the relay sends next, before any other record. Nil when it is done with the call.
	again func([]entry, []answer) []entry
}

// strategies are those of other projects. docs/compare.md names the projects.
var strategies = []strategy{
	{"re-send the failed", func(call []entry, answers []answer) (failed []entry) {
		for i := range call {
			if isFailed(answers[i]) {
				failed = append(failed, call[i])
			}
		}
		return failed
	}},
	{"from the first failed on", func(call []entry, answers []answer) []entry {
		if first := slices.IndexFunc(answers, isFailed); first >= 0 {
			return call[first:]
		}
		return nil
	}},
	{"the whole call again", func(call []entry, answers []answer) []entry {
		if slices.ContainsFunc(answers, isFailed) {
			return call
		}
		return nil
	}},
	{"no retry", func([]entry, []answer) []entry { return nil }},
}

func isFailed(a answer) bool { return a.ErrorCode != nil }

// double is a relay with walrelay's reader and a writer of another strategy. To walrelay it is a
// Kinesis that accepts everything. walrelay has one unanswered record of each aggregate, so the
// records of an aggregate come in their order.
type double struct {
	*service
	strategy
	queue chan entry
}

// PutRecords takes what walrelay has read.
func (d *double) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	out := &kinesis.PutRecordsOutput{}
	for _, record := range in.Records {
		d.queue <- record
		out.Records = append(out.Records, answer{SequenceNumber: aws.String("1"), ShardId: aws.String("queue")})
	}
	return out, nil
}

// write sends that many records in full calls, one call after the other.
func (d *double) write(ctx context.Context, events int) error {
	for left := events; left > 0; {
		var call []entry
		for range min(left, maxPutRecords) {
			select {
			case record := <-d.queue:
				call = append(call, record)
			case <-ctx.Done():
				return fmt.Errorf("%d of %d records came: %w", events-left+len(call), events, ctx.Err())
			}
		}
		left -= len(call)
		for len(call) > 0 {
			out, err := d.service.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: aws.String(stream), Records: call})
			switch {
			case err == nil:
				call = d.again(call, out.Records)
			case ctx.Err() != nil:
				return err
			}
			// Everyone sends a call again that failed as a whole.
		}
	}
	return nil
}
