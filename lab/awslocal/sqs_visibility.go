package awslocal

import (
	"fmt"
	"time"
)

// maxBatch is how many entries a batch operation takes.
const maxBatch = 10

type changeMessageVisibilityBatchInput struct {
	QueueUrl string
	Entries  []struct {
		Id                string
		ReceiptHandle     string
		VisibilityTimeout *int
	}
}

func (s *sqs) changeMessageVisibilityBatch(_ *call, in *changeMessageVisibilityBatchInput) (any, error) {
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	switch ids := map[string]bool{}; {
	case len(in.Entries) == 0:
		return nil, batchError("EmptyBatchRequest", "There should be at least one ChangeMessageVisibilityBatchRequestEntry in the request.")
	case len(in.Entries) > maxBatch:
		return nil, batchError("TooManyEntriesInBatchRequest", fmt.Sprintf(
			"Maximum number of entries per request are %d. You have sent %d.", maxBatch, len(in.Entries)))
	default:
		for _, e := range in.Entries {
			if ids[e.Id] {
				return nil, batchError("BatchEntryIdsNotDistinct", "Id "+e.Id+" repeated.")
			}
			ids[e.Id] = true
		}
	}
	successful, failed := []map[string]any{}, []map[string]any{}
	for _, e := range in.Entries { // one that fails does not stop the others
		if err := q.changeVisibility(e.ReceiptHandle, e.VisibilityTimeout); err != nil {
			failed = append(failed, map[string]any{"Id": e.Id, "SenderFault": true, "Code": err.code, "Message": err.message})
		} else {
			successful = append(successful, map[string]any{"Id": e.Id})
		}
	}
	return map[string]any{"Successful": successful, "Failed": failed}, nil
}

// changeVisibility words the error of a deleted message as in aws-sdk-net#1927.
func (q *queue) changeVisibility(handle string, seconds *int) *apiError {
	if seconds == nil || *seconds < 0 || *seconds > maxVisibility {
		return clientError("InvalidParameterValue", fmt.Sprintf("VisibilityTimeout must be an integer between 0 and %d.", maxVisibility))
	}
	id, err := q.messageID(handle)
	if err == nil && !q.setVisible(id, time.Duration(*seconds)*time.Second) {
		err = clientError("InvalidParameterValue", "Value "+handle+" for parameter ReceiptHandle is invalid. Reason: Message does not exist or is "+
			"not available for visibility timeout change.")
	}
	return err
}

// batchError is an error of a whole batch. The old protocol's codes have a prefix.
func batchError(code, message string) *apiError {
	e := clientError(code, message)
	e.queryCode = "AWS.SimpleQueueService." + code
	return e
}
