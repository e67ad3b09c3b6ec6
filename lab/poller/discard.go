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

// onFailure is the message that Lambda sends about records that it discards. It has their places,
// not their data.
func (s *shard) onFailure(w work, condition string) map[string]any {
	first, last := w.records[0], w.records[len(w.records)-1]
	message := map[string]any{
		"requestContext": map[string]any{
			"requestId": uuid.NewString(), "functionArn": s.poller.functionARN(), "condition": condition, "approximateInvokeCount": w.invocations,
		},
		"version":   "1.0",
		"timestamp": timestamp(time.Now()),
		"KinesisBatchInfo": map[string]any{
			"shardId": s.id, "startSequenceNumber": first.sequenceNumber, "endSequenceNumber": last.sequenceNumber,
			"approximateArrivalOfFirstRecord": timestamp(first.arrival), "approximateArrivalOfLastRecord": timestamp(last.arrival),
			"batchSize": len(w.records), "streamArn": s.poller.streamARN,
		},
	}
	if w.invocations > 0 { // the records were delivered at least once
		response := map[string]any{"statusCode": 200, "executedVersion": "$LATEST"}
		if w.last.err != nil { // no answer named the records
			response["functionError"] = "Unhandled"
		}
		message["responseContext"] = response
	}
	return message
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
