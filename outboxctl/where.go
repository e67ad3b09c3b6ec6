package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// WhereReport is how far one event came, hop by hop. What is empty was not found. `outboxctl where --json` prints it as it is.
type WhereReport struct {
	EventID string      `json:"eventId"`
	TraceID string      `json:"traceId,omitempty"` // of the request that made it, as the row has it
	Row     *whereRow   `json:"row,omitempty"`
	Commit  *commit     `json:"commit,omitempty"`
	Slot    *slotState  `json:"slot,omitempty"` // asked for while the event is not seen on the stream
	Stream  []onStream  `json:"stream"`         // every time that the relay, or a replay, put it there
	Read    *streamRead `json:"read,omitempty"`
	Parked  []parkedAt  `json:"parked"` // in the failure queue, or among what Lambda gave up
	Unseen  bool        `json:"queueNotReadToItsEnd,omitempty"`
	Bus     []busEntry  `json:"bus"`  // every time that the bus accepted it
	Held    []heldBy    `json:"held"` // by subscribers whose inbox is in this database
	LastHop string      `json:"lastHop"`
	Says    string      `json:"says"`
}

type whereRow struct {
	AggregateType    string    `json:"aggregateType"`
	AggregateID      string    `json:"aggregateId"`
	AggregateVersion int64     `json:"aggregateVersion"`
	EventType        string    `json:"eventType"`
	CreatedAt        time.Time `json:"createdAt"` // start of the transaction
}

// commit is where the stream's record says that the row was committed. Rows of an initial load have none.
type commit struct {
	At       time.Time `json:"at"`
	Position string    `json:"streamPosition,omitempty"` // of walrelay an LSN
	XID      uint32    `json:"transactionId,omitempty"`
}

type slotState struct {
	Name      string `json:"name"`
	Exists    bool   `json:"exists"`
	Active    bool   `json:"active"`
	WALStatus string `json:"walStatus,omitempty"`
	Confirmed string `json:"confirmedLsn,omitempty"`
	Behind    int64  `json:"bytesBehind"` // of WAL between confirmed and the newest
}

type onStream struct {
	Shard     string    `json:"shard"`
	Sequence  string    `json:"sequenceNumber"`
	Arrived   time.Time `json:"arrivedAt"`
	Operation string    `json:"operation"`
	Replay    string    `json:"replay,omitempty"` // replay/<id>
	// WrongKey is the record's partition key if that is not the event's aggregate_id.
	WrongKey string `json:"wrongPartitionKey,omitempty"`
	// OtherShard reports whether the shard is not one that aggregate_id hashes to.
	OtherShard bool `json:"otherShard,omitempty"`
}

// streamRead says how much of the stream was searched.
type streamRead struct {
	From     time.Time `json:"from"`
	Shards   []string  `json:"shards"`
	Records  int       `json:"records"`
	Complete bool      `json:"complete"` // to the newest record
}

type parkedAt struct {
	Reason       string    `json:"reason"`
	ErrorCode    string    `json:"errorCode,omitempty"`
	ErrorMessage string    `json:"errorMessage,omitempty"`
	Shard        string    `json:"shard"`
	Sequence     string    `json:"sequenceNumber"`
	At           time.Time `json:"at"`
}

// heldBy is a subscriber in order (inbox.InOrder) that got the event before an earlier version of its aggregate.
type heldBy struct {
	Subscriber string    `json:"subscriber"`
	Since      time.Time `json:"heldSince"`
	WaitsFor   int64     `json:"waitsForVersion"`
}

// MaxRecords is how many records of the stream a search reads if nobody says another number.
const MaxRecords = 200_000

// logDays is how long the bus's log keeps its entries (infra/bus.yml).
const logDays = 14

// Where returns how far the event came. It reads at most maxRecords records of the stream, or with 0 all from the event's beginning on. It
// needs all of s but Bus, Consumer and Peek. It changes nothing. Without Peek it hides the messages of the failure queues from others
// while it reads them, and for up to ten minutes if it is killed meanwhile.
//
// It looks hop by hop, in the event's order, so that it cannot slip past between two looks.
func Where(ctx context.Context, s *Setup, id uuid.UUID, maxRecords int) (*WhereReport, error) {
	r := &WhereReport{EventID: id.String(), Stream: []onStream{}, Parked: []parkedAt{}, Bus: []busEntry{}, Held: []heldBy{}}
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := r.findRow(ctx, conn, id); err != nil {
		return nil, err
	}
	log, from := newBusLog(s), begin(r.Row, id)
	aggregate := ""
	if r.Row != nil {
		aggregate = r.Row.AggregateID
	} else if r.Bus, err = log.find(ctx, from, time.Now().Add(clockSkew), id); err != nil {
		return nil, err
	} else if len(r.Bus) > 0 {
		aggregate = r.Bus[0].AggregateID
	}
	if err := r.findOnStream(ctx, newStreamReader(s), aggregate, from, id, maxRecords); err != nil {
		return nil, err
	}
	if r.Row != nil && len(r.Stream) == 0 {
		if r.Slot, err = readSlot(ctx, conn, s.Slot); err != nil {
			return nil, err
		}
	}
	if err := r.findParked(ctx, s, id); err != nil {
		return nil, err
	}
	if r.Bus, err = log.find(ctx, from, time.Now().Add(clockSkew), id); err != nil {
		return nil, err
	}
	if err := r.findHeld(ctx, conn, id); err != nil {
		return nil, err
	}
	r.conclude()
	return r, nil
}

// begin is a time before anything of the event can have happened on the stream or the bus.
func begin(row *whereRow, id uuid.UUID) time.Time {
	earliest := time.Now().AddDate(0, 0, -logDays)
	from := earliest
	if row != nil {
		from = row.CreatedAt.Add(-clockSkew)
	} else if id.Version() == 7 {
		// Made by the writer's clock, which may be wrong by more than the servers'.
		from = time.Unix(id.Time().UnixTime()).Add(-time.Hour)
	}
	if now := time.Now().Add(-clockSkew); from.After(now) {
		from = now // Kinesis refuses a time that is yet to come
	}
	if from.Before(earliest) {
		from = earliest // and neither log nor stream remembers more
	}
	return from.UTC()
}

func (r *WhereReport) findRow(ctx context.Context, conn *pgx.Conn, id uuid.UUID) error {
	row, err := dbgen.New(conn).OutboxGet(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	} else if err != nil {
		return fmt.Errorf("reading outbox: %w", err)
	}
	r.TraceID = outbox.TraceID(aws.ToString(row.Traceparent))
	r.Row = &whereRow{row.AggregateType, row.AggregateID, row.AggregateVersion, row.EventType, row.CreatedAt.UTC()}
	return nil
}

// findHeld finds nothing in a database without table inbox_held, because the subscribers may have one of their own.
func (r *WhereReport) findHeld(ctx context.Context, conn *pgx.Conn, id uuid.UUID) error {
	rows, err := dbgen.New(conn).HeldBy(ctx, id)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == undefinedTable {
		return nil
	} else if err != nil {
		return fmt.Errorf("reading inbox_held: %w", err)
	}
	for _, row := range rows {
		r.Held = append(r.Held, heldBy{row.Subscriber, row.HeldAt.UTC(), row.WaitsFor})
	}
	return nil
}

// undefinedTable is an SQLSTATE.
const undefinedTable = "42P01"

func readSlot(ctx context.Context, conn *pgx.Conn, name string) (*slotState, error) {
	slot, err := dbgen.New(conn).SlotHealth(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return &slotState{Name: name}, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading slot %s: %w", name, err)
	}
	return &slotState{name, true, slot.Active, slot.WalStatus, slot.ConfirmedLSN, slot.Unconfirmed}, nil
}

// findOnStream reads the shards that the aggregate's id hashes to. If the relay's record is not there, it reads the others, too, because a
// relay that takes another partition key puts the record on any shard. When the aggregate is not known it reads all shards.
func (r *WhereReport) findOnStream(ctx context.Context, stream streamReader, aggregate string, from time.Time, id uuid.UUID, maxRecords int) error {
	r.Read = &streamRead{From: from, Complete: true}
	shards, err := stream.shards(ctx)
	if err != nil {
		return err
	}
	var own, others []types.Shard
	for _, shard := range shards {
		if aggregate != "" && takesKey(shard, aggregate) {
			own = append(own, shard)
		} else {
			others = append(others, shard)
		}
	}
	if err := r.readShards(ctx, stream, own, id, maxRecords); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Stream, func(on onStream) bool { return on.Replay == "" }) {
		return nil
	}
	return r.readShards(ctx, stream, others, id, maxRecords)
}

func (r *WhereReport) readShards(ctx context.Context, stream streamReader, shards []types.Shard, id uuid.UUID, maxRecords int) error {
	for _, shard := range shards {
		if !r.Read.Complete {
			return nil
		}
		r.Read.Shards = append(r.Read.Shards, aws.ToString(shard.ShardId))
		err := stream.read(ctx, aws.ToString(shard.ShardId), position{at: r.Read.From}, func(raw types.Record) error {
			if maxRecords > 0 && r.Read.Records >= maxRecords {
				r.Read.Complete = false
				return errStop
			}
			r.Read.Records++
			record, skip, err := outbox.ParseRecord(raw.Data)
			if err != nil || skip != outbox.SkipNothing || record.Row.ID != id {
				return nil //nolint:nilerr // what cannot be read is the consumer's to park
			}
			r.Stream = append(r.Stream, newOnStream(shard, raw, record))
			if r.Commit == nil && !record.Commit.Time.IsZero() {
				r.Commit = &commit{record.Commit.Time.UTC(), record.Commit.StreamPosition, record.Commit.TransactionID}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func newOnStream(shard types.Shard, raw types.Record, record outbox.Record) onStream {
	on := onStream{
		Shard: aws.ToString(shard.ShardId), Sequence: aws.ToString(raw.SequenceNumber),
		Arrived: aws.ToTime(raw.ApproximateArrivalTimestamp).UTC(), Operation: record.Operation,
		OtherShard: !takesKey(shard, record.Row.AggregateID),
	}
	if record.Replay != "" {
		on.Replay = "replay/" + record.Replay
	}
	if key := aws.ToString(raw.PartitionKey); key != record.Row.AggregateID {
		on.WrongKey = key
	}
	return on
}

// findParked looks through the failure queue, and through what Lambda gave up for the records that were found on the stream.
func (r *WhereReport) findParked(ctx context.Context, s *Setup, id uuid.UUID) error {
	messages, whole, err := newHolding(s, noPayload).look(ctx)
	if err != nil {
		return err
	}
	r.Unseen = !whole
	for _, m := range messages {
		shard, sequence := m.place()
		p := parkedAt{Reason: m.reason, ErrorCode: m.parked.ErrorCode, ErrorMessage: m.parked.ErrorMessage, Shard: shard, Sequence: sequence, At: m.sent}
		if m.has(id.String()) || slices.ContainsFunc(r.Stream, func(on onStream) bool { return m.discards(on.Shard, on.Sequence) }) {
			r.Parked = append(r.Parked, p)
		}
	}
	return nil
}

// discards reports whether the message says that Lambda gave up this record.
func (m *message) discards(shard, sequence string) bool {
	batch := m.discarded.Batch
	return m.reason == reasonDiscarded && batch.ShardID == shard &&
		comparePlaces(shard, batch.Start, shard, sequence) <= 0 && comparePlaces(shard, sequence, shard, batch.End) <= 0
}
