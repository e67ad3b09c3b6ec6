package poller

import (
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
)

// discard gives w up and tells the on-failure queue. It returns false when ctx ended before the
// queue knew, and then w is not discarded. Lambda gives up telling after a while and counts
// DestinationDeliveryFailures. Here it is tried until it succeeds.
func (s *shard) discard(ctx context.Context, w work, condition string) bool {
	config := s.poller.config
	first, last := w.records[0], w.records[len(w.records)-1]
	config.Log.ErrorContext(ctx, "discarding records", "hop", 5, "condition", condition, "shard", s.id, "records", len(w.records),
		"first_sequence_number", first.sequenceNumber, "last_sequence_number", last.sequenceNumber)
	if config.OnFailure != "" {
		body, _ := json.Marshal(s.onFailure(w, condition)) // texts and numbers always marshal
		err := s.poller.retry(ctx, "sending an on-failure message", func(ctx context.Context) error {
			_, err := config.SQS.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &config.OnFailure, MessageBody: aws.String(string(body))})
			return err
		})
		if err != nil || ctx.Err() != nil {
			return false
		}
	}
	s.finish(ctx, w.records)
	return true
}

// onFailure is the message that Lambda sends about records that it discards, with its members in Lambda's order. It has their places,
// not their data.
type onFailure struct {
	RequestContext  requestContext   `json:"requestContext"`
	ResponseContext *responseContext `json:"responseContext,omitempty"` // absent when they were never delivered
	Version         string           `json:"version"`
	Timestamp       string           `json:"timestamp"`
	Batch           batchInfo        `json:"KinesisBatchInfo"`
}

type requestContext struct {
	RequestID              string `json:"requestId"`
	FunctionARN            string `json:"functionArn"`
	Condition              string `json:"condition"`
	ApproximateInvokeCount int    `json:"approximateInvokeCount"`
}

type responseContext struct {
	StatusCode      int    `json:"statusCode"`
	ExecutedVersion string `json:"executedVersion"`
	FunctionError   string `json:"functionError,omitempty"` // absent when the answer named the records
}

type batchInfo struct {
	ShardID              string `json:"shardId"`
	StartSequenceNumber  string `json:"startSequenceNumber"`
	EndSequenceNumber    string `json:"endSequenceNumber"`
	ArrivalOfFirstRecord string `json:"approximateArrivalOfFirstRecord"`
	ArrivalOfLastRecord  string `json:"approximateArrivalOfLastRecord"`
	BatchSize            int    `json:"batchSize"`
	StreamARN            string `json:"streamArn"`
}

func (s *shard) onFailure(w work, condition string) onFailure {
	first, last := w.records[0], w.records[len(w.records)-1]
	message := onFailure{
		RequestContext: requestContext{
			RequestID: uuid.NewString(), FunctionARN: s.poller.functionARN(), Condition: condition, ApproximateInvokeCount: w.invocations,
		},
		Version:   "1.0",
		Timestamp: timestamp(time.Now()),
		Batch: batchInfo{
			ShardID: s.id, StartSequenceNumber: first.sequenceNumber, EndSequenceNumber: last.sequenceNumber,
			ArrivalOfFirstRecord: timestamp(first.arrival), ArrivalOfLastRecord: timestamp(last.arrival),
			BatchSize: len(w.records), StreamARN: s.poller.streamARN,
		},
	}
	if w.invocations > 0 {
		message.ResponseContext = &responseContext{StatusCode: 200, ExecutedVersion: "$LATEST"}
		if w.last.err != nil {
			message.ResponseContext.FunctionError = "Unhandled"
		}
	}
	return message
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
