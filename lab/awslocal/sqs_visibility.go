package awslocal

import (
	"fmt"
	"net/http"
	"strconv"
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

// batchFailure is one entry that failed. The others are carried out.
type batchFailure struct {
	Id          string
	SenderFault bool
	Code        string
	Message     string
}

type changeMessageVisibilityBatchOutput struct {
	Successful []map[string]string
	Failed     []batchFailure
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
		return nil, batchError("TooManyEntriesInBatchRequest", "Maximum number of entries per request are "+strconv.Itoa(maxBatch)+
			". You have sent "+strconv.Itoa(len(in.Entries))+".")
	default:
		for _, e := range in.Entries {
			if ids[e.Id] {
				return nil, batchError("BatchEntryIdsNotDistinct", "Id "+e.Id+" repeated.")
			}
			ids[e.Id] = true
		}
	}
	out := changeMessageVisibilityBatchOutput{Successful: []map[string]string{}, Failed: []batchFailure{}}
	for _, e := range in.Entries {
		if code, message := q.changeVisibility(e.ReceiptHandle, e.VisibilityTimeout); code != "" {
			out.Failed = append(out.Failed, batchFailure{Id: e.Id, SenderFault: true, Code: code, Message: message})
			continue
		}
		out.Successful = append(out.Successful, map[string]string{"Id": e.Id})
	}
	return out, nil
}

// changeVisibility returns an error's code and text. That of a deleted message is worded as in aws-sdk-net#1927.
func (q *queue) changeVisibility(handle string, seconds *int) (code, message string) {
	if seconds == nil || *seconds < 0 || *seconds > maxVisibility {
		return "InvalidParameterValue", fmt.Sprintf("VisibilityTimeout must be an integer between 0 and %d.", maxVisibility)
	}
	id, ok := q.messageID(handle)
	if !ok {
		return "ReceiptHandleIsInvalid", fmt.Sprintf("The input receipt handle %q is not a valid receipt handle.", handle)
	}
	if !q.setVisible(id, time.Duration(*seconds)*time.Second) {
		return "InvalidParameterValue", "Value " + handle + " for parameter ReceiptHandle is invalid. Reason: Message does not exist or is " +
			"not available for visibility timeout change."
	}
	return "", ""
}

// batchError is an error of a whole batch. The old protocol's codes have a prefix.
func batchError(code, message string) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: message, queryCode: "AWS.SimpleQueueService." + code}
}
