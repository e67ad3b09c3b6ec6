package walrelay

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// numbered is an answer that a record of the test gets. Without a number the answer is lost.
type numbered struct{ shard, number string }

// Kinesis may give the later of two puts the lower number. The relay cannot prevent it, so it says so. It says nothing of numbers that
// prove nothing.
func TestARecordThatKinesisStoresBeforeItsPredecessorIsReported(t *testing.T) {
	t.Parallel()
	const one, two = "shardId-000000000001", "shardId-000000000002"
	for name, test := range map[string]struct {
		answers []numbered // to the versions of one aggregate, in the order of the calls
		want    []string   // "later/earlier" of each line
	}{
		"InOrder":             {[]numbered{{one, "98"}, {one, "99"}, {one, "100"}}, nil}, // as text, "100" is less
		"LowerNumber":         {[]numbered{{one, "7"}, {one, "5"}, {one, "8"}}, []string{"2/1"}},
		"ShorterNumber":       {[]numbered{{one, "100"}, {one, "99"}}, []string{"2/1"}},
		"SameNumber":          {[]numbered{{one, "7"}, {one, "7"}}, []string{"2/1"}},
		"ManyDigits":          {[]numbered{{one, strings.Repeat("9", 127) + "1"}, {one, strings.Repeat("9", 127) + "0"}}, []string{"2/1"}},
		"TwoBeforeTheFirst":   {[]numbered{{one, "9"}, {one, "5"}, {one, "6"}}, []string{"2/1", "3/1"}},
		"AnotherShard":        {[]numbered{{one, "7"}, {two, "5"}, {two, "6"}}, nil},
		"AnotherShardAndBack": {[]numbered{{one, "7"}, {two, "5"}, {two, "4"}}, []string{"3/2"}},
		"SentAgain":           {[]numbered{{one, "7"}, {}, {one, "9"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &answering{answer: func(call int, in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
				a := test.answers[call-1]
				if a.number == "" {
					return nil, context.DeadlineExceeded
				}
				return &kinesis.PutRecordsOutput{Records: []types.PutRecordsResultEntry{{ShardId: &a.shard, SequenceNumber: &a.number}}}, nil
			}}
			p, log := newPipeline(), &bytes.Buffer{}
			for v := range len(test.answers) {
				p.add(&pending{key: "7f3", data: []byte("payload"), event: eventName{"Car", int64(v + 1), uuid.Nil}})
			}
			s := sender{k, "stream", "slot", slog.New(slog.NewTextHandler(log, nil)), &sequences{}}
			for range test.answers {
				batch := p.take(1, 100)
				accepted, err := s.put(t.Context(), p, batch)
				p.settle(batch, accepted)
				if err != nil {
					p.retry(p.lanes["7f3"]) // without the wait
				}
			}
			var got []string
			for line := range strings.Lines(log.String()) {
				if !strings.Contains(line, "msg=reordered") {
					continue
				}
				require.Contains(t, line, "level=ERROR msg=reordered hop=4 StreamName=stream SlotName=slot reordered=1 aggregate_type=Car aggregate_id=7f3 ")
				require.Contains(t, line, "Name:reordered Unit:Count", "the alarm goes by the metric")
				require.NotContains(t, line, "payload")
				member := func(name string) string {
					_, rest, found := strings.Cut(line, " "+name+"=")
					require.True(t, found, name)
					value, _, _ := strings.Cut(rest, " ")
					return value
				}
				version := member("aggregate_version")
				got = append(got, version+"/"+member("before.aggregate_version"))
				require.LessOrEqual(t, compareNumbers(member("sequence_number"), member("before.sequence_number")), 0)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// The relay's memory is flat, however many aggregates there are. The latest keys are compared all the same.
func TestTheRelayRemembersTheNumbersOfTheLatestKeys(t *testing.T) {
	t.Parallel()
	var s sequences
	put := func(key, number int) bool {
		_, reordered := s.accept(&pending{key: fmt.Sprint(key)}, types.PutRecordsResultEntry{ShardId: aws.String("s"), SequenceNumber: aws.String(fmt.Sprint(number))})
		return reordered
	}
	const many = 5*rememberedKeys + 1
	for key := range many {
		require.False(t, put(key, 1_000_000+key))
		require.LessOrEqual(t, len(s.latest)+len(s.older), 2*rememberedKeys)
	}
	for key := many - rememberedKeys; key < many; key++ {
		require.True(t, put(key, 1), "%d", key)
	}
}
