package awslocal

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

type receiveMessageInput struct {
	QueueUrl                    string
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MessageAttributeNames       []string
}

type messageOutput struct {
	MessageId         string
	ReceiptHandle     string
	MD5OfBody         string
	Body              string
	Attributes        map[string]string          `json:",omitempty"`
	MessageAttributes map[string]json.RawMessage `json:",omitempty"`
}

func (s *sqs) receiveMessage(c *call, in *receiveMessageInput) (any, error) {
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	const reason = "Must be between %d and %d, if provided." // aws-sdk-java#197 for the first use, unconfirmed for the others
	limit, err1 := within(in.MaxNumberOfMessages, "MaxNumberOfMessages", reason, 1, maxReceive, 1)
	hide, err2 := within(in.VisibilityTimeout, "VisibilityTimeout", reason, 0, maxVisibility, int(defaultVisibility.Seconds()))
	wait, err3 := within(in.WaitTimeSeconds, "WaitTimeSeconds", reason, 0, maxWait, 0)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, err
	}
	messages, err := s.poll(c, q, limit, time.Duration(hide)*time.Second, time.Duration(wait)*time.Second)
	if err != nil || len(messages) == 0 {
		return struct{}{}, err
	}
	var out struct{ Messages []messageOutput }
	for _, m := range messages {
		out.Messages = append(out.Messages, in.output(m))
	}
	return out, nil
}

// poll waits for a first message until the time is up, the client gives up or the server closes. It
// must not take a message for a client that has gone, because the message would be hidden from the
// others until its timeout.
func (s *sqs) poll(c *call, q *queue, limit int, hide, wait time.Duration) ([]received, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		if c.ctx.Err() != nil {
			return nil, c.ctx.Err()
		}
		messages, sent, again, err := q.receive(limit, hide)
		if err != nil || len(messages) > 0 || wait == 0 {
			return messages, err
		}
		visible := make(<-chan time.Time)
		if again > 0 {
			visible = time.After(again)
		}
		select {
		case <-sent:
		case <-visible:
		case <-timeout.C:
			wait = 0 // one last look
		case <-c.ctx.Done():
		case <-s.done:
			wait = 0
		}
	}
}

func (in *receiveMessageInput) output(m received) messageOutput {
	out := messageOutput{
		MessageId: m.ID, ReceiptHandle: m.handle, MD5OfBody: md5Hex(m.Body), Body: m.Body,
		Attributes: map[string]string{}, MessageAttributes: map[string]json.RawMessage{},
	}
	names := slices.Concat(in.AttributeNames, in.MessageSystemAttributeNames)
	for name, value := range map[string]string{
		"SenderId":                         Account,
		"SentTimestamp":                    strconv.FormatInt(m.Sent, 10),
		"ApproximateReceiveCount":          strconv.Itoa(m.count),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.firstReceived, 10),
	} {
		if slices.Contains(names, name) || slices.Contains(names, "All") {
			out.Attributes[name] = value
		}
	}
	for name, value := range m.Attributes {
		if slices.ContainsFunc(in.MessageAttributeNames, func(pattern string) bool {
			prefix, isPrefix := strings.CutSuffix(pattern, ".*")
			return pattern == "All" || pattern == name || isPrefix && strings.HasPrefix(name, prefix)
		}) {
			out.MessageAttributes[name] = value
		}
	}
	return out
}
