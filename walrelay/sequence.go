package walrelay

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"

	"rds-outbox-demo/internal/emf"
)

// rememberedKeys is how many partition keys sequences knows at least. It knows at most twice as many.
const rememberedKeys = 10_000

// sequences notices that Kinesis stored two records of a partition key in another order than it accepted them. Readers get a shard's
// records by sequence number. AWS promises growing numbers only with SequenceNumberForOrdering, which PutRecords does not have. Of puts
// in quick succession it says that their numbers "are not guaranteed to increase". Nothing here can prevent that, so the relay reports it.
//
// Only puts in quick succession matter, so the latest keys suffice, and the memory stays flat. At 10,000 records a second, each of
// another key, they are those of one second. A key with a backlog is one of them, because its next record goes out when the other keys
// have had their turn.
type sequences struct {
	mu            sync.Mutex
	latest, older map[string]stored // by partition key. older is full, and nothing is added to it.
}

// stored is a record that Kinesis has accepted.
type stored struct {
	shard, number string // number is the sequence number, in decimal
	event         eventName
}

// eventName names an event in the log.
type eventName struct {
	aggregateType string
	version       int64
	id            uuid.UUID
}

// accept notes an answer that accepts record. It returns the record that was accepted before it and that readers get after it, if there
// is one. The caller accepts the records of a key in the order of their answers. A record whose answer was lost is noted when it is
// accepted again, with its new number.
func (s *sequences) accept(record *pending, entry types.PutRecordsResultEntry) (before stored, reordered bool) {
	now := stored{aws.ToString(entry.ShardId), aws.ToString(entry.SequenceNumber), record.event}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.latest[record.key]
	if !known {
		before, known = s.older[record.key]
	}
	// Between shards, as after a reshard, the numbers say nothing.
	reordered = known && now.shard != "" && before.shard == now.shard && compareNumbers(before.number, now.number) >= 0
	if reordered {
		now = before // readers get it after the next record, too, if that has a number below it
	}
	if s.latest == nil || len(s.latest) >= rememberedKeys {
		s.older, s.latest = s.latest, make(map[string]stored)
	}
	s.latest[record.key] = now
	return before, reordered
}

// compareNumbers compares sequence numbers. They have up to 128 digits, too many for an integer type, and no leading zeros.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// logReordered writes the line of a record that readers get before one that was accepted earlier, which is its metric, too.
func (s sender) logReordered(ctx context.Context, record *pending, entry types.PutRecordsResultEntry, before stored) {
	s.log.LogAttrs(ctx, slog.LevelError, "reordered",
		slog.Int("hop", 4),
		slog.String("StreamName", s.stream),
		slog.String("SlotName", s.slot),
		slog.Int("reordered", 1),
		slog.String("aggregate_type", record.event.aggregateType),
		slog.String("aggregate_id", record.key),
		slog.Int64("aggregate_version", record.event.version),
		slog.Any("event_id", record.event.id),
		slog.String("trace_id", record.traceID),
		slog.String("shard", before.shard),
		slog.String("sequence_number", aws.ToString(entry.SequenceNumber)),
		slog.Group("before", // accepted before, and read after
			slog.String("aggregate_type", before.event.aggregateType),
			slog.Int64("aggregate_version", before.event.version),
			slog.Any("event_id", before.event.id),
			slog.String("sequence_number", before.number)),
		emf.Directive(time.Now(), dimensions, emf.Metric{Name: "reordered", Unit: emf.Count}))
}
