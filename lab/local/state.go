package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
)

// Dir is the data folder.
func (s *Path) Dir() string { return s.dir }

func (s *Path) isLocal(service Service) bool { return s.CanBreak(service) == nil }

// Slot is the name of the relay's slot.
func (s *Path) Slot() string { return s.slot }

// ReadBus calls fn for every event that the local bus's journal has, and tells whether that is all that the bus ever accepted. It has none of
// a bus that is the user's own.
func (s *Path) ReadBus(fn func(awslocal.BusEvent) error) (whole bool, err error) {
	if !s.isLocal(EventBridge) {
		return false, nil
	}
	dir := filepath.Join(s.dir, "aws")
	whole = awslocal.JournalIsWhole(dir)
	err = awslocal.ReadBus(dir, fn)
	if errors.Is(err, os.ErrNotExist) {
		return whole, nil
	}
	return whole, err
}

// ReadParked calls fn for every record in the local failure queue, without receiving it.
func (s *Path) ReadParked(fn func(cdcconsumer.ParkedRecord) error) error {
	if !s.isLocal(SQS) {
		return nil
	}
	return s.AWS.ReadQueue(localQueue, func(body string) error {
		var parked cdcconsumer.ParkedRecord
		if isRecord := json.Unmarshal([]byte(body), &parked) == nil; isRecord { // not somebody else's message
			return fn(parked)
		}
		return nil
	})
}

// Position is where a shard ends, and how far the consumer is, both as the number of a record within the shard.
type Position struct {
	Shard          string
	End, Done      uint64
	SequenceNumber string // of Done; empty before the first record
}

// Positions tells them of the local stream: how far the consumer is by the poller's checkpoint. Of a stream of the user's own nobody
// can tell where it ends.
func (s *Path) Positions() ([]Position, error) {
	if !s.isLocal(Kinesis) {
		return nil, nil
	}
	var file struct {
		Shards map[string]struct {
			SequenceNumber string `json:"sequenceNumber"`
		} `json:"shards"`
	}
	content, err := os.ReadFile(filepath.Join(s.dir, checkpointFile))
	if err == nil {
		err = json.Unmarshal(content, &file)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the poller's checkpoint: %w", err)
	}
	var all []Position
	for _, end := range s.AWS.ShardEnds(s.clients.stream) {
		p := Position{Shard: end.Shard, End: end.Index, SequenceNumber: file.Shards[end.Shard].SequenceNumber}
		p.Done, _ = awslocal.SequenceIndex(p.SequenceNumber)
		all = append(all, p)
	}
	return all, nil
}

// Depths are the numbers of messages in the queues, visible or not.
type Depths struct {
	Failures           int // of the consumer
	Subscriber         int // carstats' queue
	SubscriberFailures int
}

// Depths asks the queues.
func (s *Path) Depths(ctx context.Context) (d Depths, err error) {
	if d.Failures, err = s.depth(ctx, s.clients.queueURL); err != nil || s.carStats.run == nil {
		return d, err
	}
	if d.Subscriber, err = s.depth(ctx, awslocal.QueueURL(s.clients.local, localStats)); err != nil {
		return d, err
	}
	d.SubscriberFailures, err = s.depth(ctx, awslocal.QueueURL(s.clients.local, localStats+"-failures"))
	return d, err
}

func (s *Path) depth(ctx context.Context, url string) (n int, err error) {
	out, err := s.clients.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{
		sqstypes.QueueAttributeNameApproximateNumberOfMessages, sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}})
	if err != nil {
		return 0, fmt.Errorf("asking queue %s for its depth: %w", url, err)
	}
	for _, value := range out.Attributes {
		one, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("reading the depth of queue %s: %w", url, err)
		}
		n += one
	}
	return n, nil
}
