package cdcconsumer

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"
)

func newTestQueue(items ...*item) *queue {
	q := &queue{waiting: map[aggregate][]*item{}}
	for i, it := range items {
		it.place = i
		q.add(it)
	}
	return q
}

func of(aggregateID string, size int) *item {
	return &item{row: row(aggregateID, 1), size: size}
}

func places(items []*item) (all []int) {
	for _, it := range items {
		all = append(all, it.place)
	}
	return all
}

// The last settled record decides how far the checkpoint gets, so the next event of an aggregate
// takes its place among the others.
func TestTheNextOfAnAggregateGoesByItsPlace(t *testing.T) {
	t.Parallel()
	q := newTestQueue(of("a", 1), of("b", 1), of("a", 1), of("c", 1), of("a", 1), of("d", 1))
	first := q.take(2)
	require.Equal(t, []int{0, 1}, places(first))
	q.settled(first[0])
	require.Equal(t, []int{2, 3, 5}, places(q.take(10)), "4 waits for 2")
}

// The limit is below 256 KiB, not at it.
func TestACallIsBelowTheLimitOfBytes(t *testing.T) {
	t.Parallel()
	require.Len(t, newTestQueue(of("a", 128<<10), of("b", 128<<10)).take(10), 1)
	require.Len(t, newTestQueue(of("a", 128<<10), of("b", 128<<10-1)).take(10), 2)
	require.Len(t, newTestQueue(of("a", 300<<10), of("b", 1)).take(10), 1, "a larger one goes alone")
}

func TestTheSizeOfAnEntryIsCountedAsTheBusCounts(t *testing.T) {
	t.Parallel()
	require.Equal(t, 14+1+2+4+8+9, entrySize(types.PutEventsRequestEntry{
		Source: aws.String("s"), DetailType: aws.String("dt"), Detail: aws.String("{\"é"), Resources: []string{"replay/1", "replay/22"},
	}))
}
