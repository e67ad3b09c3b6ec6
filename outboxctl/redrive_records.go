package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// record is one of the stream that a message stands for.
type record struct {
	outgoing
	shard, sequence string
	event           *outbox.Record // nil when it cannot be decoded, or is none of ours
}

// errForgotten means that the stream no longer has a record.
var errForgotten = errors.New("the stream no longer has it")

// resolver finds the records of messages.
type resolver struct {
	reader  streamReader
	queries *dbgen.Queries
}

// resolve returns the message's records in stream order, as they were on the stream.
func (r resolver) resolve(ctx context.Context, m *message) ([]*record, error) {
	switch {
	case m.reason == reasonUnreadable:
		return nil, errors.New(m.problem)
	case m.reason == reasonDiscarded:
		return r.resolveDiscarded(ctx, m.discarded.Batch)
	case m.parked.Truncated:
		found, err := r.resolveTruncated(ctx, m)
		if err != nil {
			return nil, err
		}
		return []*record{found}, nil
	}
	return []*record{newRecord(m.parked.ShardID, m.parked.SequenceNumber, m.parked.PartitionKey, m.parked.Data)}, nil
}

func (r resolver) resolveDiscarded(ctx context.Context, batch batchInfo) ([]*record, error) {
	found, err := r.between(ctx, batch.StreamARN, batch.ShardID, batch.Start, batch.End)
	if errors.Is(err, errForgotten) {
		// A row is older than its record by the relay's delay, which is not known any more.
		return nil, fmt.Errorf("%w, and the message has no payload: outboxctl replay --from %s --to %s (earlier, if the relay was late then)", err,
			batch.First.Add(-10*time.Minute).UTC().Format(time.RFC3339), batch.Last.Add(time.Second).UTC().Format(time.RFC3339))
	}
	return found, err
}

// resolveTruncated gets the whole record from the stream or, when that has forgotten it, makes it anew from the event's row.
func (r resolver) resolveTruncated(ctx context.Context, m *message) (*record, error) {
	parked := m.parked
	found, err := r.between(ctx, parked.StreamARN, parked.ShardID, parked.SequenceNumber, parked.SequenceNumber)
	if err == nil {
		return found[0], nil
	}
	if !errors.Is(err, errForgotten) {
		return nil, err
	}
	err = fmt.Errorf("%w, and the message has %d of its %d bytes", err, len(parked.Data), parked.Size)
	id, errID := uuid.Parse(parked.EventID)
	if errID != nil {
		return nil, fmt.Errorf("%w: it was no event, or one of a row that outboxctl replay can send", err)
	}
	row, errRow := r.queries.OutboxGet(ctx, id)
	if errors.Is(errRow, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w, and its row is gone", err)
	} else if errRow != nil {
		return nil, fmt.Errorf("reading the row of event %s: %w", id, errRow)
	}
	line, err := outbox.Record{Row: row, Operation: outbox.OperationLoad, Timestamp: time.Now()}.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	return newRecord(parked.ShardID, parked.SequenceNumber, row.AggregateID, line), nil
}

// between reads the records of a shard from one sequence number to another, both included. It returns errForgotten when one is
// missing.
func (r resolver) between(ctx context.Context, streamARN, shard, start, end string) (found []*record, err error) {
	if _, name, _ := strings.Cut(streamARN, ":stream/"); name != r.reader.stream {
		return nil, fmt.Errorf("%w: it was on stream %q, this is %s", errForgotten, name, r.reader.stream)
	}
	err = r.reader.read(ctx, shard, position{sequence: start}, func(got types.Record) error {
		sequence := aws.ToString(got.SequenceNumber)
		// Where a record has expired, reading begins at the oldest that is left.
		if len(found) == 0 && sequence != start {
			return errForgotten
		}
		found = append(found, newRecord(shard, sequence, aws.ToString(got.PartitionKey), got.Data))
		if comparePlaces(shard, sequence, shard, end) >= 0 {
			return errStop
		}
		return nil
	})
	var invalid *types.InvalidArgumentException // a sequence number that this stream never had, or not any more
	var missing *types.ResourceNotFoundException
	if errors.As(err, &invalid) || errors.As(err, &missing) {
		return nil, fmt.Errorf("%w: %w", errForgotten, err)
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 || found[len(found)-1].sequence != end {
		return nil, fmt.Errorf("%w: %s of %s is missing", errForgotten, end, shard)
	}
	return found, nil
}

func newRecord(shard, sequence, key string, data []byte) *record {
	r := &record{outgoing: outgoing{key: key, data: data}, shard: shard, sequence: sequence}
	if event, skip, err := outbox.ParseRecord(data); err == nil && skip == outbox.SkipNothing {
		r.event = &event
	}
	return r
}

// lateness warns where newer versions of an aggregate are already published, because an older version that is sent now comes late.
func lateness(ctx context.Context, queries *dbgen.Queries, records []*record) (warnings []string, err error) {
	type aggregate struct{ kind, id string }
	oldest := map[aggregate]int64{}
	in := dbgen.OutboxNewestParams{ExceptIds: []uuid.UUID{}}
	for _, r := range records {
		if r.event == nil {
			continue
		}
		row := r.event.Row
		in.ExceptIds = append(in.ExceptIds, row.ID)
		a := aggregate{row.AggregateType, row.AggregateID}
		version, seen := oldest[a]
		if !seen {
			in.AggregateTypes, in.AggregateIds = append(in.AggregateTypes, a.kind), append(in.AggregateIds, a.id)
		}
		if !seen || row.AggregateVersion < version {
			oldest[a] = row.AggregateVersion
		}
	}
	if len(oldest) == 0 {
		return nil, nil
	}
	newest, err := queries.OutboxNewest(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("looking for newer versions: %w", err)
	}
	for _, n := range newest {
		if version := oldest[aggregate{n.AggregateType, n.AggregateID}]; n.Newest > version {
			warnings = append(warnings, fmt.Sprintf("%s %s is at version %d in the table: subscribers will see version %d late; aggregateVersion tells them",
				n.AggregateType, printable(n.AggregateID), n.Newest, version))
		}
	}
	slices.Sort(warnings)
	return warnings, nil
}

// leftBehind warns where an older version of an aggregate stays parked while a newer one goes.
func leftBehind(all, selected []*message) (warnings []string) {
	type aggregate struct{ kind, id string }
	chosen, newest := map[*message]bool{}, map[aggregate]int64{}
	for _, m := range selected {
		chosen[m] = true
		a := aggregate{m.parked.AggregateType, m.parked.AggregateID}
		newest[a] = max(newest[a], m.parked.AggregateVersion)
	}
	for _, m := range all {
		version := newest[aggregate{m.parked.AggregateType, m.parked.AggregateID}]
		if !chosen[m] && m.parked.EventID != "" && version > m.parked.AggregateVersion {
			warnings = append(warnings, fmt.Sprintf("%s %s: version %d stays parked while version %d goes", m.parked.AggregateType,
				printable(m.parked.AggregateID), m.parked.AggregateVersion, version))
		}
	}
	return warnings
}
