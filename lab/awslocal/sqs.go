package awslocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxMessageBytes   = 1 << 20 // artillery#3683
	maxReceive        = 10
	defaultVisibility = 30 * time.Second
	maxVisibility     = 12 * 60 * 60
	maxWait           = 20
	maxDelay          = 15 * 60
)

// sqs holds the queues. They are standard queues with SQS's default attributes, except for the
// retention, which is 14 days.
type sqs struct {
	conf   Config
	queues map[string]*queue
	done   <-chan struct{}
}

var queueName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,80}$`)

func openSQS(conf Config, done <-chan struct{}) (*sqs, error) {
	s := &sqs{conf: conf, queues: map[string]*queue{}, done: done}
	for i, name := range conf.Queues {
		if !queueName.MatchString(name) {
			return s, fmt.Errorf("awslocal: Config.Queues[%d] %q: use 1 to 80 of a-z A-Z 0-9 _ -", i, name)
		}
		q, err := openQueue(filepath.Join(conf.Dir, "queue-"+name+".jsonl"), name, conf.Now)
		if err != nil {
			return s, err
		}
		s.queues[name] = q
	}
	return s, s.setRedrives()
}

func (s *sqs) close() error {
	var errs []error
	for _, q := range s.queues {
		errs = append(errs, q.log.Close())
	}
	return errors.Join(errs...)
}

// QueueURL is the URL of a queue at the listener's endpoint, such as http://127.0.0.1:4566.
func QueueURL(endpoint, name string) string {
	return strings.TrimSuffix(endpoint, "/") + "/" + Account + "/" + name
}

func queueARN(name string) string { return "arn:aws:sqs:" + Region + ":" + Account + ":" + name }

func (s *sqs) find(url string) (*queue, error) {
	q, ok := s.queues[url[strings.LastIndex(url, "/")+1:]]
	if !ok {
		e := clientError("QueueDoesNotExist", "The specified queue does not exist.")
		e.queryCode = "AWS.SimpleQueueService.NonExistentQueue"
		return nil, e
	}
	return q, nil
}

// invalidParameter is SQS's error for a value out of range. Its code is in no model, only in the
// query protocol's header.
func invalidParameter(value any, name, reason string) error {
	return clientError("InvalidParameterValue", fmt.Sprintf("Value %v for parameter %s is invalid. Reason: %s", value, name, reason))
}

// within checks an optional number, and returns the default for nil. The reason names both limits.
func within(value *int, name, reason string, low, high, def int) (int, error) {
	if value == nil {
		return def, nil
	}
	if *value < low || *value > high {
		return 0, invalidParameter(*value, name, fmt.Sprintf(reason, low, high))
	}
	return *value, nil
}

type getQueueAttributesInput struct {
	QueueUrl       string
	AttributeNames []string
}

func (s *sqs) getQueueAttributes(_ *call, in *getQueueAttributesInput) (any, error) {
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	visible, hidden, delayed := q.count()
	all := map[string]string{
		"ApproximateNumberOfMessages":           strconv.Itoa(visible),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(hidden),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(delayed),
		"QueueArn":                              queueARN(q.name),
		"MessageRetentionPeriod":                strconv.Itoa(int(queueRetention.Seconds())),
		"VisibilityTimeout":                     strconv.Itoa(int(defaultVisibility.Seconds())),
		"MaximumMessageSize":                    strconv.Itoa(maxMessageBytes),
		"DelaySeconds":                          "0",
		"ReceiveMessageWaitTimeSeconds":         "0",
		"CreatedTimestamp":                      strconv.FormatInt(q.created.Unix(), 10),
		"LastModifiedTimestamp":                 strconv.FormatInt(q.created.Unix(), 10),
	}
	if slices.Contains(in.AttributeNames, "All") {
		return map[string]any{"Attributes": all}, nil
	}
	out := map[string]string{}
	for _, name := range in.AttributeNames {
		value, ok := all[name]
		if !ok {
			return nil, clientError("InvalidAttributeName", "Unknown Attribute "+name+".")
		}
		out[name] = value
	}
	return map[string]any{"Attributes": out}, nil
}

type sendMessageInput struct {
	QueueUrl          string
	MessageBody       string
	DelaySeconds      *int
	MessageAttributes map[string]json.RawMessage
}

func (in *sendMessageInput) matches(text string) bool { return strings.Contains(in.MessageBody, text) }

// notXML reports whether a message must not contain the character. SQS accepts only those of XML
// 1.0.
func notXML(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == '\uFFFE' || r == '\uFFFF'
}

// checkCharacters holds for a message however it comes, by SendMessage or by a rule.
func checkCharacters(body string) error {
	if strings.ContainsFunc(body, notXML) {
		return clientError("InvalidMessageContents", "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
	}
	return nil
}

// sendMessage leaves out MD5OfMessageAttributes, because the Go SDK checks the body's sum only.
func (s *sqs) sendMessage(_ *call, in *sendMessageInput) (any, error) {
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	delay, err := within(in.DelaySeconds, "DelaySeconds", "DelaySeconds must be >= %d and <= %d.", 0, maxDelay, 0) // amazon-sqs-dlq-replay-backoff#8
	if err != nil {
		return nil, err
	}
	bytes := len(in.MessageBody)
	for name, value := range in.MessageAttributes {
		bytes += len(name) + attributeBytes(value)
	}
	switch {
	case in.MessageBody == "":
		return nil, clientError("MissingParameter", "The request must contain the parameter MessageBody.")
	case bytes > maxMessageBytes:
		return nil, clientError("InvalidParameterValue", fmt.Sprintf("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", maxMessageBytes))
	}
	if err := checkCharacters(in.MessageBody); err != nil {
		return nil, err
	}
	id, err := q.send(in.MessageBody, in.MessageAttributes, time.Duration(delay)*time.Second)
	if err != nil {
		return nil, err
	}
	return map[string]string{"MessageId": id, "MD5OfMessageBody": md5Hex(in.MessageBody)}, nil
}

// attributeBytes counts an attribute's type and value.
func attributeBytes(raw json.RawMessage) int {
	var v struct {
		DataType, StringValue string
		BinaryValue           []byte
	}
	_ = json.Unmarshal(raw, &v) // it is valid JSON already, and a value of another shape counts as nothing
	return len(v.DataType) + len(v.StringValue) + len(v.BinaryValue)
}

type deleteMessageInput struct {
	QueueUrl      string
	ReceiptHandle string
}

// deleteMessage takes an old handle, too, as moto#4655 verified against AWS.
func (s *sqs) deleteMessage(_ *call, in *deleteMessageInput) (any, error) {
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	id, invalid := q.messageID(in.ReceiptHandle)
	if invalid != nil {
		return nil, invalid
	}
	return nil, q.delete(id)
}
