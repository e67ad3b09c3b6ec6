package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"rds-outbox-demo/lab/awslocal"
)

// Position is where a shard ends, and how far the consumer is, both as the number of a record within the shard.
type Position struct {
	Shard          string
	End, Done      uint64
	SequenceNumber string // of Done; empty before the first record
}

// Positions returns how far the consumer is on the local stream, by the poller's checkpoint. Nobody
// can tell where an external stream ends.
func (p *Path) Positions() ([]Position, error) {
	if !p.isLocal(Kinesis) {
		return nil, nil
	}
	var file struct {
		Shards map[string]struct {
			SequenceNumber string `json:"sequenceNumber"`
		} `json:"shards"`
	}
	content, err := os.ReadFile(p.CheckpointFile())
	if err == nil {
		err = json.Unmarshal(content, &file)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the poller's checkpoint: %w", err)
	}
	var all []Position
	for _, end := range p.AWS.ShardEnds(p.Services.Stream) {
		at := Position{Shard: end.Shard, End: end.Index, SequenceNumber: file.Shards[end.Shard].SequenceNumber}
		at.Done, _ = awslocal.SequenceIndex(at.SequenceNumber)
		all = append(all, at)
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
func (p *Path) Depths(ctx context.Context) (d Depths, err error) {
	if d.Failures, err = p.depth(ctx, p.Services.FailureQueueURL); err != nil || p.Services.CarStatsURL == "" {
		return d, err
	}
	if d.Subscriber, err = p.depth(ctx, p.Services.CarStatsURL); err != nil {
		return d, err
	}
	d.SubscriberFailures, err = p.depth(ctx, p.Services.CarStatsURL+"-failures")
	return d, err
}

func (p *Path) depth(ctx context.Context, url string) (n int, err error) {
	out, err := p.Services.SQS().GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{
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
