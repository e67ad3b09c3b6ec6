package cdcconsumer

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
)

const (
	// maxMessageBytes is what every SQS queue takes.
	maxMessageBytes = 256 << 10
	// maxCutBytes is what is kept of a record that does not fit a message, and maxCutText what is kept of each text beside it. The longest
	// id that table outbox takes is shorter. JSON may make six bytes of one, and a message still fits.
	maxCutBytes = 64 << 10
	maxCutText  = 1 << 10
)

// Reason is why a record can never be published.
type Reason string

const (
	ReasonUndecodable Reason = "undecodable" // not a DMS record, or one of our table that cannot be read
	ReasonRefused     Reason = "refused"     // EventBridge refused it for its content, sent alone
)

// ParkedRecord is the message in the failure queue, as JSON.
type ParkedRecord struct {
	Reason       Reason `json:"reason"`
	ErrorCode    string `json:"errorCode,omitempty"` // EventBridge's, with ReasonRefused
	ErrorMessage string `json:"errorMessage"`

	// Where the stream keeps the record until its retention ends.
	StreamARN      string    `json:"streamArn"`
	ShardID        string    `json:"shardId"`
	SequenceNumber string    `json:"sequenceNumber"`
	PartitionKey   string    `json:"partitionKey"`
	ArrivalTime    time.Time `json:"arrivalTime"`

	// Of a record that could be decoded.
	EventID          string `json:"eventId,omitempty"`
	EventType        string `json:"eventType,omitempty"`
	AggregateType    string `json:"aggregateType,omitempty"`
	AggregateID      string `json:"aggregateId,omitempty"`
	AggregateVersion int64  `json:"aggregateVersion,omitempty"`

	Data      []byte `json:"data"` // the raw record in base64; its first 64 KiB when Truncated
	Size      int    `json:"size"` // bytes of the whole record
	Truncated bool   `json:"truncated"`
}

// park sends the poison below the lowest failure to the failure queue, in batch order. Poison above it comes back with the retry:
// parked now, it would be parked again. Where parking fails, that record is the lowest failure.
func (c *Consumer) park(ctx context.Context, items []*item, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for _, it := range items {
		if it.state.done() {
			continue
		}
		if it.state != statePoison {
			return
		}
		if it.cause = c.parkItem(ctx, it); it.cause != nil && !sabotage.On(sabotage.ParkUnanswered) {
			return
		}
		it.state = stateParked
		c.config.Logger.WarnContext(ctx, "parked", "hop", 6, "event_id", eventID(it), "trace_id", traceID(it), "reason", string(it.reason),
			"error_code", it.code, "shard", shardID(it.record), "sequence_number", it.record.Kinesis.SequenceNumber)
	}
}

// parkItem leaves the SDK's retries on, because parking keeps no order, and a message that arrives twice does no harm.
func (c *Consumer) parkItem(ctx context.Context, it *item) error {
	body, err := parkedMessage(it)
	if err != nil {
		return fmt.Errorf("parking record %s: %w", it.record.Kinesis.SequenceNumber, err)
	}
	failpoint.Hit(failpoint.ConsumerBeforePark)
	_, err = c.config.SQS.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl:    aws.String(c.config.FailureQueueURL),
		MessageBody: aws.String(body),
	})
	failpoint.Hit(failpoint.ConsumerAfterPark)
	if err != nil {
		return fmt.Errorf("parking record %s: %w", it.record.Kinesis.SequenceNumber, err)
	}
	return nil
}

func parkedMessage(it *item) (string, error) {
	kinesis := it.record.Kinesis
	parked := ParkedRecord{
		Reason: it.reason, ErrorCode: it.code, ErrorMessage: it.message,
		StreamARN: it.record.EventSourceArn, ShardID: shardID(it.record), SequenceNumber: kinesis.SequenceNumber,
		PartitionKey: kinesis.PartitionKey, ArrivalTime: kinesis.ApproximateArrivalTimestamp.UTC(),
		EventID: eventID(it), EventType: it.row.EventType,
		AggregateType: it.row.AggregateType, AggregateID: it.row.AggregateID, AggregateVersion: it.row.AggregateVersion,
		Data: kinesis.Data, Size: len(kinesis.Data),
	}
	body, err := parked.encode()
	if err == nil && len(body) > maxMessageBytes {
		// An error may quote the record, and whoever writes to the stream chooses the rest. A message that SQS refuses would block the shard.
		parked.Data, parked.Truncated = kinesis.Data[:min(maxCutBytes, len(kinesis.Data))], true
		for _, text := range []*string{
			&parked.ErrorCode, &parked.ErrorMessage, &parked.PartitionKey, &parked.EventType, &parked.AggregateType, &parked.AggregateID,
		} {
			*text = strings.ToValidUTF8((*text)[:min(maxCutText, len(*text))], "")
		}
		body, err = parked.encode()
	}
	return body, err
}

// encode returns the message. PostgreSQL takes U+FFFE and U+FFFF in an aggregate id, and SQS refuses a message with them (API reference of
// SendMessage, InvalidMessageContents). Everything else that SQS refuses json escapes by itself.
func (p ParkedRecord) encode() (string, error) {
	body, err := json.Marshal(p)
	return strings.NewReplacer("\uFFFE", `\ufffe`, "\uFFFF", `\uffff`).Replace(string(body)), err
}

func eventID(it *item) string {
	if it.row.ID == uuid.Nil {
		return ""
	}
	return it.row.ID.String()
}
