package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/outbox"
)

const (
	// The doctor looks at this many events of each of this many open shards.
	keysPerShard = 100
	keysShards   = 16
)

// keySample is what a look at the stream found out about partition keys.
type keySample struct {
	open          int               // shards that take records
	events, wrong int               // wrong is how many have a partition key that is not their aggregate_id
	example       string            // one wrong key
	keys          map[string]bool   // every key
	ofAggregate   map[string]string // the key that an aggregate was seen with first
	again         bool              // an aggregate was seen twice
	split         string            // an aggregate that was seen with two keys
}

// partitionKeys compares the partition key of some records with their aggregate_id. Kinesis chooses
// the shard by the key, and keeps the order of a shard only. Under DMS the key comes from a table
// mapping that DMS does not check.
func (d doctor) partitionKeys(ctx context.Context, stream *types.StreamDescriptionSummary) []check {
	const name = "partition key"
	if stream == nil {
		return []check{{name, stateSkip, "no stream", ""}}
	}
	retention := time.Duration(aws.ToInt32(stream.RetentionPeriodHours)) * time.Hour
	shards, err := newStreamReader(d.Setup).shards(ctx)
	if err != nil {
		return []check{serviceError(name, err, "it takes kinesis:ListShards, GetShardIterator and GetRecords")}
	}
	var sample keySample
	for _, back := range []time.Duration{time.Hour, retention} { // records of today say more than those of a key that is mended since
		sample, err = d.sampleKeys(ctx, shards, d.now().Add(-back))
		if err != nil || sample.events > 0 {
			break
		}
	}
	// A quiet stream with a long retention has many empty pages. What was seen until the time was over counts.
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return []check{serviceError(name, err, "it takes kinesis:ListShards, GetShardIterator and GetRecords")}
	}
	if err != nil && sample.events == 0 {
		return []check{{name, stateSkip, "no event was found in the time for this check", ""}}
	}
	found := sample.judge()
	found.Name = name
	return []check{found}
}

func (d doctor) sampleKeys(ctx context.Context, shards []types.Shard, from time.Time) (keySample, error) {
	reader := newStreamReader(d.Setup)
	sample := keySample{keys: map[string]bool{}, ofAggregate: map[string]string{}}
	for _, shard := range shards {
		if shard.SequenceNumberRange != nil && shard.SequenceNumberRange.EndingSequenceNumber != nil {
			continue // closed by a resharding: its records are older than those of its children
		}
		if sample.open++; sample.open > keysShards {
			continue
		}
		events := 0
		err := reader.read(ctx, aws.ToString(shard.ShardId), position{at: from}, func(raw types.Record) error {
			record, skip, err := outbox.ParseRecord(raw.Data)
			if err != nil || skip != outbox.SkipNothing || record.Replay != "" {
				return nil //nolint:nilerr // what cannot be read is the consumer's to park; a replay is ours, not the relay's
			}
			sample.add(aws.ToString(raw.PartitionKey), record.Row.AggregateID)
			if events++; events == keysPerShard {
				return errStop
			}
			return nil
		})
		if err != nil {
			return sample, err
		}
	}
	return sample, nil
}

func (s *keySample) add(key, aggregateID string) {
	s.events++
	s.keys[key] = true
	if key != aggregateID {
		s.wrong++
		s.example = key
	}
	first, seen := s.ofAggregate[aggregateID]
	switch {
	case !seen:
		s.ofAggregate[aggregateID] = key
	case first == key:
		s.again = true
	default:
		s.split = aggregateID
	}
}

// judge says what the keys do to the order. A wrong key alone does not break it. What breaks the order is
// that the events of one aggregate have several keys, on a stream with several shards.
func (s *keySample) judge() check {
	if s.events == 0 {
		return check{State: stateOK, Finding: "no event on the stream to look at"}
	}
	if s.wrong == 0 {
		return check{State: stateOK, Finding: fmt.Sprintf("aggregate_id, in %s that were looked at", plural.Of(s.events, "event"))}
	}
	c := check{State: stateFail, Do: "see misplaced in docs/operations.md",
		Finding: fmt.Sprintf("%d of %s that were looked at have another key than aggregate_id, such as %q. ", s.wrong, plural.Of(s.events, "event"), s.example)}
	switch {
	case s.open == 1:
		c.State = stateWarn
		c.Finding += "The stream has one shard, which keeps the order. A second shard would break it"
	case s.split != "":
		c.Finding += fmt.Sprintf("Aggregate %q has several keys, so its events can be on several shards, and their order is lost", s.split)
	case s.again || s.events > 1 && len(s.keys) == 1:
		c.State = stateWarn
		c.Finding += fmt.Sprintf("No aggregate was seen with two keys, so the order is kept, but all events have %s", plural.Of(len(s.keys), "key"))
	default:
		c.Finding += "No aggregate was seen twice. If its next event has another key, its order is lost"
	}
	return c
}
