package awslocal_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// change sets the visibility of each message and returns the answer.
func (q queueClient) change(seconds int32, handles ...string) (*sdk.ChangeMessageVisibilityBatchOutput, error) {
	in := &sdk.ChangeMessageVisibilityBatchInput{QueueUrl: q.url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{}}
	for i, handle := range handles {
		in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(fmt.Sprint(i)), ReceiptHandle: &handle, VisibilityTimeout: seconds,
		})
	}
	return q.ChangeMessageVisibilityBatch(q.t.Context(), in)
}

func TestChangeMessageVisibility(t *testing.T) {
	t.Parallel()

	t.Run("OfZeroGivesAMessageBackAtOnce", func(t *testing.T) {
		t.Parallel()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		q.send("a")
		q.send("b")
		hidden := q.receive(func(in *sdk.ReceiveMessageInput) { in.VisibilityTimeout = 1000 })
		require.Len(t, hidden, 2)
		require.Empty(t, q.receive())
		out, err := q.change(0, *hidden[0].ReceiptHandle)
		require.NoError(t, err)
		require.Len(t, out.Successful, 1)
		require.Equal(t, []string{"a"}, bodies(q.receive()))
	})

	t.Run("OfZeroWakesWhoWaits", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		q.send("a")
		hidden := q.receive(func(in *sdk.ReceiveMessageInput) { in.VisibilityTimeout = 1000 })
		polls := server.Faults().Add(awslocal.Fault{Operation: "ReceiveMessage", Kind: awslocal.Delay, Delay: time.Nanosecond})
		got := make(chan int)
		go func() { got <- len(q.await()) }()
		labtest.Eventually(t, "the poll", func() bool { return polls.Struck() > 0 })
		_, err := q.change(0, *hidden[0].ReceiptHandle)
		require.NoError(t, err)
		require.Equal(t, 1, <-got)
	})

	t.Run("LengthensAndLeavesWhatIsVisibleAlone", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}, Now: clock.now})
		q := queue(t, cfg)
		q.send("a")
		hidden := q.receive(func(in *sdk.ReceiveMessageInput) { in.VisibilityTimeout = 10 })
		_, err := q.change(100, *hidden[0].ReceiptHandle)
		require.NoError(t, err)
		clock.pass(99 * time.Second)
		require.Empty(t, q.receive())
		clock.pass(time.Second)
		out, err := q.change(100, *hidden[0].ReceiptHandle) // too late, so it is answered with success, and nothing happens
		require.NoError(t, err)
		require.Len(t, out.Successful, 1)
		require.Len(t, q.receive(), 1)
	})

	t.Run("FailsEntryByEntry", func(t *testing.T) {
		t.Parallel()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		q.send("a")
		q.send("b")
		hidden := q.receive()
		q.delete(hidden[0])
		out, err := q.change(0, *hidden[0].ReceiptHandle, *hidden[1].ReceiptHandle, "nonsense")
		require.NoError(t, err)
		require.Len(t, out.Successful, 1)
		require.Equal(t, "1", *out.Successful[0].Id)
		require.Len(t, out.Failed, 2)
		require.Equal(t, "InvalidParameterValue", *out.Failed[0].Code)
		require.Contains(t, *out.Failed[0].Message, "Message does not exist")
		require.Equal(t, "ReceiptHandleIsInvalid", *out.Failed[1].Code)
		out, err = q.change(43201, *hidden[1].ReceiptHandle)
		require.NoError(t, err)
		require.Len(t, out.Failed, 1)
	})

	t.Run("RefusesABadBatch", func(t *testing.T) {
		t.Parallel()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		_, err := q.change(0)
		require.ErrorAs(t, err, new(*types.EmptyBatchRequest))
		_, err = q.change(0, make([]string, 11)...)
		require.ErrorAs(t, err, new(*types.TooManyEntriesInBatchRequest))
		_, err = q.ChangeMessageVisibilityBatch(t.Context(), &sdk.ChangeMessageVisibilityBatchInput{QueueUrl: q.url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
			{Id: aws.String("a"), ReceiptHandle: aws.String("x")}, {Id: aws.String("a"), ReceiptHandle: aws.String("y")},
		}})
		require.ErrorAs(t, err, new(*types.BatchEntryIdsNotDistinct))
		_, err = q.ChangeMessageVisibilityBatch(t.Context(), &sdk.ChangeMessageVisibilityBatchInput{QueueUrl: aws.String(*q.url + "x"), Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
			{Id: aws.String("a"), ReceiptHandle: aws.String("x")},
		}})
		require.ErrorAs(t, err, new(*types.QueueDoesNotExist))
	})
}
