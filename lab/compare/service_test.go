package compare_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
)

// refusedShare is the share of the events whose record Kinesis refuses once.
const refusedShare = 0.01

// service is the local Kinesis, but it refuses the drawn records the first time they come. An event
// id is drawn by its first four bytes, so every strategy meets the same refusals, however it calls.
type service struct {
	*kinesis.Client
	mu      sync.Mutex
	refused map[uuid.UUID]bool
	sent    int // records in the calls that were carried out
}

// PutRecords answers as Kinesis does. The records behind a refused one are still accepted.
func (s *service) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	answers := make([]types.PutRecordsResultEntry, len(in.Records))
	var passed []int // places in the call
	rest := *in
	rest.Records = nil
	for i, record := range in.Records {
		if s.refuses(eventID(record)) {
			answers[i] = types.PutRecordsResultEntry{ErrorCode: aws.String("ProvisionedThroughputExceededException"), ErrorMessage: aws.String("drawn")}
			continue
		}
		passed, rest.Records = append(passed, i), append(rest.Records, record)
	}
	if len(passed) > 0 { // Kinesis takes no empty call
		out, err := s.Client.PutRecords(ctx, &rest, options...)
		if err != nil {
			return nil, err
		}
		for i, place := range passed {
			answers[place] = out.Records[i]
		}
	}
	s.carriedOut(in.Records, answers)
	return &kinesis.PutRecordsOutput{FailedRecordCount: aws.Int32(int32(len(answers) - len(passed))), Records: answers}, nil
}

func (s *service) refuses(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(binary.BigEndian.Uint32(id[:4])) < refusedShare*math.MaxUint32 && !s.refused[id]
}

// carriedOut notes the refusals. A call that failed as a whole has told the caller of none.
func (s *service) carriedOut(records []types.PutRecordsRequestEntry, answers []types.PutRecordsResultEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent += len(records)
	for i, record := range records {
		if answers[i].ErrorCode != nil {
			s.refused[eventID(record)] = true
		}
	}
}

// eventID reads the id of a record that walrelay wrote. ParseRecord would take longer than the call.
func eventID(record types.PutRecordsRequestEntry) uuid.UUID {
	_, rest, _ := bytes.Cut(record.Data, []byte(`"id":"`))
	id, err := uuid.ParseBytes(rest[:36])
	if err != nil {
		panic(err) // not a record of walrelay
	}
	return id
}
