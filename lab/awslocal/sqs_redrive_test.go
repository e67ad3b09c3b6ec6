package awslocal_test

import (
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

func TestRedrive(t *testing.T) {
	t.Parallel()
	clock := newClock()
	conf := awslocal.Config{
		Dir: t.TempDir(), Queues: []string{"q", "dead"}, Now: clock.now,
		Redrives: map[string]awslocal.Redrive{"q": {DeadLetterQueue: "dead", MaxReceiveCount: 2}},
	}
	server, cfg := start(t, conf)
	q := queue(t, cfg)
	dead := q
	url := awslocal.QueueURL(*cfg.BaseEndpoint, "dead")
	dead.url = &url

	q.send("poison")
	clock.pass(time.Second)
	q.send("good")
	sent := q.receive(func(in *sdk.ReceiveMessageInput) {
		in.MessageSystemAttributeNames = append(in.MessageSystemAttributeNames, "All")
	})
	require.Equal(t, []string{"poison", "good"}, bodies(sent))
	q.delete(sent[1])
	clock.pass(31 * time.Second)
	require.Equal(t, []string{"poison"}, bodies(q.receive()), "the second and last time")
	require.Empty(t, dead.receive(), "not before it would be received again")
	clock.pass(29 * time.Second)
	require.Empty(t, q.receive(), "still hidden, and not moved")
	require.Equal(t, "0 1 0", q.counts())

	waited := make(chan string)
	polls := server.Faults().Add(awslocal.Fault{Operation: "ReceiveMessage", Kind: awslocal.Delay, Delay: time.Nanosecond})
	go func() {
		m := dead.await(func(in *sdk.ReceiveMessageInput) {
			in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"All"}
		})[0]
		waited <- *m.MessageId + m.Attributes["SentTimestamp"] + m.Attributes["ApproximateReceiveCount"]
	}()
	labtest.Eventually(t, "the poll", func() bool { return polls.Struck() > 0 })
	clock.pass(2 * time.Second)
	require.Empty(t, q.receive())
	require.Equal(t, "0 0 0", q.counts())
	require.Equal(t, *sent[0].MessageId+sent[0].Attributes["SentTimestamp"]+"1", <-waited, "the same message, as old as it was")

	require.NoError(t, server.Close())
	_, cfg = start(t, conf)
	require.Empty(t, queue(t, cfg).receive())
	url = awslocal.QueueURL(*cfg.BaseEndpoint, "dead")
	again := queue(t, cfg)
	again.url = &url
	require.Equal(t, []string{"poison"}, bodies(again.receive()))
}

func TestRedrivesAreChecked(t *testing.T) {
	t.Parallel()
	for name, redrives := range map[string]map[string]awslocal.Redrive{
		"UnknownQueue":      {"x": {DeadLetterQueue: "dead", MaxReceiveCount: 1}},
		"UnknownDeadLetter": {"q": {DeadLetterQueue: "x", MaxReceiveCount: 1}},
		"NoCount":           {"q": {DeadLetterQueue: "dead"}},
		"CountTooHigh":      {"q": {DeadLetterQueue: "dead", MaxReceiveCount: 1001}},
		"ToItself":          {"q": {DeadLetterQueue: "q", MaxReceiveCount: 1}},
		"Circle":            {"q": {DeadLetterQueue: "dead", MaxReceiveCount: 1}, "dead": {DeadLetterQueue: "q", MaxReceiveCount: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := awslocal.Open(awslocal.Config{Dir: t.TempDir(), Queues: []string{"q", "dead"}, Redrives: redrives})
			require.ErrorContains(t, err, "Config.Redrives[")
		})
	}
}
