package awslocal_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// queueClient is an SQS client for the queue "q".
type queueClient struct {
	t   *testing.T
	url *string
	*sdk.Client
}

func queue(t *testing.T, cfg aws.Config) queueClient {
	t.Helper()
	return queueClient{t, aws.String(awslocal.QueueURL(*cfg.BaseEndpoint, "q")), sdk.NewFromConfig(cfg)}
}

func (q queueClient) send(body string) {
	q.t.Helper()
	_, err := q.SendMessage(q.t.Context(), &sdk.SendMessageInput{QueueUrl: q.url, MessageBody: &body})
	require.NoError(q.t, err)
}

func (q queueClient) receive(edit ...func(*sdk.ReceiveMessageInput)) []types.Message {
	q.t.Helper()
	in := &sdk.ReceiveMessageInput{QueueUrl: q.url, MaxNumberOfMessages: 10}
	for _, edit := range edit {
		edit(in)
	}
	out, err := q.ReceiveMessage(q.t.Context(), in)
	require.NoError(q.t, err)
	return out.Messages
}

// await polls until there is a message. One poll would end empty on a machine on which its 20 s pass before the message is sent.
func (q queueClient) await(edit ...func(*sdk.ReceiveMessageInput)) (messages []types.Message) {
	q.t.Helper()
	for len(messages) == 0 {
		messages = q.receive(append(edit, func(in *sdk.ReceiveMessageInput) { in.WaitTimeSeconds = 20 })...)
	}
	return messages
}

func (q queueClient) delete(m types.Message) {
	q.t.Helper()
	_, err := q.DeleteMessage(q.t.Context(), &sdk.DeleteMessageInput{QueueUrl: q.url, ReceiptHandle: m.ReceiptHandle})
	require.NoError(q.t, err)
}

func bodies(messages []types.Message) (all []string) {
	for _, m := range messages {
		all = append(all, *m.Body)
	}
	return all
}

func (q queueClient) counts() string {
	q.t.Helper()
	out, err := q.GetQueueAttributes(q.t.Context(), &sdk.GetQueueAttributesInput{QueueUrl: q.url, AttributeNames: []types.QueueAttributeName{"All"}})
	require.NoError(q.t, err)
	return strings.Join([]string{
		out.Attributes["ApproximateNumberOfMessages"], out.Attributes["ApproximateNumberOfMessagesNotVisible"],
		out.Attributes["ApproximateNumberOfMessagesDelayed"],
	}, " ")
}

func TestQueueHidesAndReturnsMessages(t *testing.T) {
	t.Parallel()
	clock := newClock()
	_, cfg := start(t, awslocal.Config{Queues: []string{"q"}, Now: clock.now})
	q := queue(t, cfg)
	q.send("one")
	q.send("two")
	_, err := q.SendMessage(t.Context(), &sdk.SendMessageInput{QueueUrl: q.url, MessageBody: aws.String("later"), DelaySeconds: 60})
	require.NoError(t, err)
	require.Equal(t, "2 0 1", q.counts())

	first := q.receive(func(in *sdk.ReceiveMessageInput) { in.MaxNumberOfMessages = 1; in.VisibilityTimeout = 10 })
	require.Equal(t, []string{"one"}, bodies(first))
	require.Equal(t, []string{"two"}, bodies(q.receive()), "30 seconds by default")
	require.Empty(t, q.receive())
	require.Equal(t, "0 2 1", q.counts())
	clock.pass(9999 * time.Millisecond)
	require.Empty(t, q.receive())
	clock.pass(time.Millisecond)
	again := q.receive(func(in *sdk.ReceiveMessageInput) {
		in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"ApproximateReceiveCount", "SentTimestamp"}
	})
	require.Equal(t, []string{"one"}, bodies(again))
	require.Equal(t, map[string]string{"ApproximateReceiveCount": "2", "SentTimestamp": "1772366400000"}, again[0].Attributes)
	q.delete(first[0]) // an old handle still deletes
	q.delete(again[0])
	clock.pass(50 * time.Second)
	require.Equal(t, []string{"two", "later"}, bodies(q.receive()))
	clock.pass(14 * 24 * time.Hour)
	require.Empty(t, q.receive(), "retention")
}

// How long a poll takes is for TestLongPollEndsWithWhatEndsIt.
func TestQueueLongPoll(t *testing.T) {
	t.Parallel()
	t.Run("EndsWhenMessageArrives", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		polls := server.Faults().Add(awslocal.Fault{Operation: "ReceiveMessage", Kind: awslocal.Delay, Delay: time.Nanosecond}) // says that the poll is there
		got := make(chan []string)
		go func() { got <- bodies(q.await()) }()
		labtest.Eventually(t, "the poll", func() bool { return polls.Struck() > 0 })
		q.send("one")
		require.Equal(t, []string{"one"}, <-got)
	})
	t.Run("EndsWhenMessageIsVisibleAgain", func(t *testing.T) {
		t.Parallel()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		q.send("one")
		require.Len(t, q.receive(func(in *sdk.ReceiveMessageInput) { in.VisibilityTimeout = 1 }), 1)
		require.Equal(t, []string{"one"}, bodies(q.await()))
	})
	t.Run("EndsEmptyAfterItsTime", func(t *testing.T) {
		t.Parallel()
		_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		require.Empty(t, queue(t, cfg).receive(func(in *sdk.ReceiveMessageInput) { in.WaitTimeSeconds = 1 }))
	})
	t.Run("EndsWhenServerCloses", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
		q := queue(t, cfg)
		polls := server.Faults().Add(awslocal.Fault{Operation: "ReceiveMessage", Kind: awslocal.Delay, Delay: time.Nanosecond})
		got := make(chan []types.Message)
		go func() { got <- q.receive(func(in *sdk.ReceiveMessageInput) { in.WaitTimeSeconds = 20 }) }()
		labtest.Eventually(t, "the poll", func() bool { return polls.Struck() == 1 })
		require.NoError(t, server.Close())
		require.Empty(t, <-got)
	})
}

func TestQueueMessageAttributes(t *testing.T) {
	t.Parallel()
	clock := newClock()
	_, cfg := start(t, awslocal.Config{Queues: []string{"q"}, Now: clock.now})
	q := queue(t, cfg)
	attributes := map[string]types.MessageAttributeValue{
		"reason": {DataType: aws.String("String"), StringValue: aws.String("no <JSON>")},
		"raw":    {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}},
	}
	_, err := q.SendMessage(t.Context(), &sdk.SendMessageInput{QueueUrl: q.url, MessageBody: aws.String("body"), MessageAttributes: attributes})
	require.NoError(t, err)
	for _, tc := range []struct{ asked, want []string }{
		{nil, nil}, {[]string{"reason"}, []string{"reason"}}, {[]string{"r.*"}, []string{"raw", "reason"}}, {[]string{"All"}, []string{"raw", "reason"}},
	} {
		clock.pass(time.Minute)
		got := q.receive(func(in *sdk.ReceiveMessageInput) { in.MessageAttributeNames = tc.asked })
		require.Len(t, got, 1)
		require.Equal(t, tc.want, slices.Sorted(maps.Keys(got[0].MessageAttributes)))
		for name, value := range got[0].MessageAttributes {
			require.Equal(t, attributes[name], value)
		}
	}
}

// The ranges are those of the API reference (botocore 1.43.11, sqs/2012-11-05/service-2.json). The
// code has the sources of the texts.
func TestQueueErrors(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{Queues: []string{"q"}})
	q := queue(t, cfg)
	send := func(body string) error {
		_, err := q.SendMessage(t.Context(), &sdk.SendMessageInput{QueueUrl: q.url, MessageBody: &body})
		return err
	}
	require.NoError(t, send(strings.Repeat("x", 1<<20)))
	err := send(strings.Repeat("x", 1<<20+1))
	require.Equal(t, "InvalidParameterValue", code(t, err))
	require.Equal(t, "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.", message(t, err))
	require.Equal(t, "MissingParameter", code(t, send("")))
	for _, bad := range []string{"a\x00b", "\x1f", "\uFFFE"} {
		require.ErrorAs(t, send(bad), new(*types.InvalidMessageContents))
	}
	require.NoError(t, send("tab\tnew\nline é \U0001F600"))

	_, err = q.SendMessage(t.Context(), &sdk.SendMessageInput{QueueUrl: aws.String(awslocal.QueueURL(*cfg.BaseEndpoint, "absent")), MessageBody: aws.String("x")})
	require.ErrorAs(t, err, new(*types.QueueDoesNotExist))
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(t, err))
	for _, in := range []sdk.ReceiveMessageInput{
		{MaxNumberOfMessages: 11}, {MaxNumberOfMessages: -1}, {VisibilityTimeout: 43_201}, {VisibilityTimeout: -1}, {WaitTimeSeconds: 21}, {WaitTimeSeconds: -1},
	} {
		in.QueueUrl = q.url
		_, err = q.ReceiveMessage(t.Context(), &in)
		require.Equal(t, "InvalidParameterValue", code(t, err), in)
	}
	_, err = q.ReceiveMessage(t.Context(), &sdk.ReceiveMessageInput{QueueUrl: q.url, MaxNumberOfMessages: 11})
	require.Equal(t, "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.", message(t, err))
	for _, delay := range []int32{-1, 901} {
		_, err = q.SendMessage(t.Context(), &sdk.SendMessageInput{QueueUrl: q.url, MessageBody: aws.String("x"), DelaySeconds: delay})
		require.Equal(t, "InvalidParameterValue", code(t, err))
		require.Equal(t, fmt.Sprintf("Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.", delay), message(t, err))
	}
	_, err = q.SendMessage(t.Context(), &sdk.SendMessageInput{
		QueueUrl: q.url, MessageBody: aws.String(strings.Repeat("x", 1<<20-10)),
		MessageAttributes: map[string]types.MessageAttributeValue{"name": {DataType: aws.String("String"), StringValue: aws.String("x")}},
	})
	require.Equal(t, "InvalidParameterValue", code(t, err), "name, type and value count")
	_, err = q.DeleteMessage(t.Context(), &sdk.DeleteMessageInput{QueueUrl: q.url, ReceiptHandle: aws.String("fake")})
	require.ErrorAs(t, err, new(*types.ReceiptHandleIsInvalid))
	require.Equal(t, `The input receipt handle "fake" is not a valid receipt handle.`, message(t, err))
	_, err = q.GetQueueAttributes(t.Context(), &sdk.GetQueueAttributesInput{QueueUrl: q.url, AttributeNames: []types.QueueAttributeName{"Colour"}})
	require.ErrorAs(t, err, new(*types.InvalidAttributeName))
	one, err := q.GetQueueAttributes(t.Context(), &sdk.GetQueueAttributesInput{QueueUrl: q.url, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"QueueArn": "arn:aws:sqs:us-east-1:000000000000:q"}, one.Attributes)
}

func TestQueueSurvivesRestart(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Queues: []string{"q"}, Now: newClock().now} // what is hidden stays hidden
	server, cfg := start(t, conf)
	q := queue(t, cfg)
	for i := range 5 {
		q.send(fmt.Sprint(i))
	}
	held := q.receive()
	q.delete(held[1])
	q.delete(held[1]) // gone already, so no error
	require.NoError(t, server.Close())
	path := filepath.Join(conf.Dir, "queue-q.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"send":{"id":"torn`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	_, cfg = start(t, conf)
	q = queue(t, cfg)
	require.Equal(t, []string{"0", "2", "3", "4"}, bodies(q.receive()))
	q.delete(held[2]) // a handle of before
	q.send("5")
	require.Equal(t, []string{"5"}, bodies(q.receive()))
	require.Equal(t, "0 4 0", q.counts())
}

func TestQueueForgetsDeletedMessages(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Queues: []string{"q"}, Now: newClock().now} // what is hidden stays hidden
	server, cfg := start(t, conf)
	q := queue(t, cfg)
	q.send("stays hidden")
	hidden := q.receive()
	q.send("stays")
	for range 30 {
		q.send("x" + strings.Repeat("y", 100<<10))
		for _, m := range q.receive() {
			if *m.Body != "stays" {
				q.delete(m)
			}
		}
	}
	info, err := os.Stat(filepath.Join(conf.Dir, "queue-q.jsonl"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2<<20), "3 MB went through")
	require.Empty(t, q.receive(), "compaction keeps what is hidden hidden")
	require.NoError(t, server.Close())
	_, cfg = start(t, conf)
	q = queue(t, cfg)
	require.Equal(t, []string{"stays hidden", "stays"}, bodies(q.receive()))
	q.delete(hidden[0])
	require.Equal(t, "0 1 0", q.counts())
}
