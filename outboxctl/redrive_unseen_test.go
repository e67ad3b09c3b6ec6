package outboxctl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

// Version 1 is in the hands of another reader. The later versions must not go before it.
func TestRedriveSendsNothingWhileSomeoneHoldsAMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	events := []outbox.Event{event("a", 1), event("a", 2), event("a", 3)}
	r.commit(t, events...)
	r.parkEvent(t, events[0], 1)
	queue := sqs.NewFromConfig(r.config)
	other, err := queue.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &r.setup.FailureQueue, MaxNumberOfMessages: 1, VisibilityTimeout: 12 * 3600, // it must not come back while the test runs
	})
	require.NoError(t, err)
	require.Len(t, other.Messages, 1)
	r.parkEvent(t, events[1], 2)
	r.parkEvent(t, events[2], 3)

	for _, dryRun := range []bool{false, true} {
		p, out, _ := r.inProcess()
		err := redrive(t.Context(), p, r.setup, redriveOptions{all: true, rate: 1000, dryRun: dryRun})
		const want = "someone else is looking at 1 message, and an older version may be among them, so nothing is sent: run it again in a minute"
		require.EqualError(t, err, want)
		var report redriveReport
		require.NoError(t, json.Unmarshal(out.Bytes(), &report))
		require.Equal(t, []string{want}, report.Warnings)
		require.Len(t, report.Messages, 2)
		if !dryRun {
			require.Zero(t, report.Records)
			require.Equal(t, 2, report.Failed)
		}
		require.Empty(t, r.streamed(t))
		require.Equal(t, "2+1", r.depth(t, r.setup.FailureQueue))
	}
	list := decode[redriveListing](t, r.run(t, "redrive", "list", "--json"))
	require.Len(t, list.Messages, 2)
	require.Contains(t, list.Warnings[0], "there are more messages")

	given, err := queue.ChangeMessageVisibilityBatch(t.Context(), &sqs.ChangeMessageVisibilityBatchInput{
		QueueUrl: &r.setup.FailureQueue,
		Entries:  []types.ChangeMessageVisibilityBatchRequestEntry{{Id: aws.String("it"), ReceiptHandle: other.Messages[0].ReceiptHandle}},
	})
	require.NoError(t, err)
	require.Len(t, given.Successful, 1)
	all := r.run(t, "redrive", "--all")
	require.Zero(t, all.code, all.err)
	require.Equal(t, upTo(3), r.versions(t, "a", ""))
}

// Of a queue that does not fit into memory one aggregate can still be seen whole.
func TestRedriveOfAQueueAboveTheLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 20 {
		e := event(fmt.Sprint("car-", i%10), i/10+1)
		e.Data = json.RawMessage(`{"text":"` + strings.Repeat("x", 10*messageBytes) + `"}`)
		r.commit(t, e)
		r.parkEvent(t, e, i+1)
	}
	const limit = 50 * messageBytes // all without payload and two with it
	for name, o := range map[string]redriveOptions{"All": {all: true}, "OneAggregate": {id: "car-3"}} {
		p, _, _ := r.inProcess()
		h := newHolding(r.setup, o.chooses)
		h.limit = limit
		unseen, err := takeWhole(t.Context(), p, h, time.Hour)
		require.NoError(t, err)
		if o.all {
			require.ErrorContains(t, unseen, "so nothing is sent: redrive one aggregate at a time", name)
			require.Less(t, len(h.messages()), 20, name)
		} else {
			require.NoError(t, unseen, name)
			require.Len(t, h.messages(), 20, name)
			for _, m := range h.messages() {
				require.Equal(t, m.parked.AggregateID == "car-3", m.parked.Data != nil, name)
			}
		}
		require.NoError(t, h.releaseAll(t.Context()))
	}
}

// The documented exit codes of commands that have nothing to do.
func TestExitCodeOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for args, want := range map[string]int{
		"audit": 0, "redrive list": 0, "redrive list --reason refused": 0, "redrive --all": 0, "replay --all": 0,
		"audit --aggregate-type Car": 1, "redrive --reason refused": 1, "redrive car-1": 1, "redrive show car-1": 1, "replay --aggregate-type Car": 1, "where car-1": 1,
	} {
		got := r.run(t, strings.Fields(args)...)
		require.Equal(t, want, got.code, "%s: %s%s", args, got.out, got.err)
	}
}
