package outboxctl

import (
	"context"
	"crypto/md5" //nolint:gosec // what Kinesis uses to choose the shard
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// streamReader reads records from the stream (④).
type streamReader struct {
	client *kinesis.Client
	stream string
	pause  time.Duration // between two GetRecords
}

const (
	// readPause and readRecords leave a shard's 5 calls and 2 MB a second to the consumer, which needs them more. All readers
	// without enhanced fan-out share them (API reference of GetRecords).
	readPause   = 500 * time.Millisecond
	readRecords = 2000
)

func newStreamReader(s *Setup) streamReader {
	return streamReader{client: kinesis.NewFromConfig(s.AWS), stream: s.Stream, pause: readPause}
}

// shards lists all shards whose records may still be there, closed ones too.
func (r streamReader) shards(ctx context.Context) ([]types.Shard, error) {
	var all []types.Shard
	for in := (&kinesis.ListShardsInput{StreamName: &r.stream}); ; {
		page, err := r.client.ListShards(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing the shards of %s: %w", r.stream, err)
		}
		all = append(all, page.Shards...)
		if page.NextToken == nil {
			return all, nil
		}
		in = &kinesis.ListShardsInput{NextToken: page.NextToken} // with a name beside it the call is refused
	}
}

// takesKey reports whether the shard takes, or took before a resharding, records with this partition key.
func takesKey(shard types.Shard, partitionKey string) bool {
	sum := md5.Sum([]byte(partitionKey)) //nolint:gosec // as above
	hash := new(big.Int).SetBytes(sum[:])
	low, ok1 := new(big.Int).SetString(aws.ToString(shard.HashKeyRange.StartingHashKey), 10)
	high, ok2 := new(big.Int).SetString(aws.ToString(shard.HashKeyRange.EndingHashKey), 10)
	return ok1 && ok2 && low.Cmp(hash) <= 0 && hash.Cmp(high) <= 0
}

// position is where reading a shard begins. It is the record with this sequence number or, if that is empty, the first record
// that arrived at this time or later.
type position struct {
	sequence string
	at       time.Time
}

// errStop ends a read from inside its function.
var errStop = errors.New("enough")

// read calls fn for the records of a shard from the position to the newest one, in order. fn's error ends it and is returned,
// errStop as nil. A sequence number that the stream no longer has is an error. A time before the oldest record is not an error.
func (r streamReader) read(ctx context.Context, shard string, from position, fn func(types.Record) error) error {
	in := &kinesis.GetShardIteratorInput{StreamName: &r.stream, ShardId: &shard}
	if from.sequence != "" {
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, &from.sequence
	} else {
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, &from.at
	}
	start, err := r.client.GetShardIterator(ctx, in)
	if err != nil {
		return fmt.Errorf("reading %s of %s: %w", shard, r.stream, err)
	}
	for iterator := start.ShardIterator; iterator != nil; { // nil at the end of a closed shard
		page, err := r.client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator, Limit: aws.Int32(readRecords)})
		if err != nil {
			return fmt.Errorf("reading %s of %s: %w", shard, r.stream, err)
		}
		for _, record := range page.Records {
			if err := fn(record); errors.Is(err, errStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
		// An empty page does not mean that nothing follows. Only MillisBehindLatest says that.
		if aws.ToInt64(page.MillisBehindLatest) == 0 {
			return nil
		}
		iterator = page.NextShardIterator
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(r.pause):
		}
	}
	return nil
}
