// Package outbox is the contract that both ends of the path share. It says how an event is written (②), and what it looks like on the
// stream (④).
//
// In: an Event from the service, inside the transaction of its change. Out: a row of table outbox, and the Record that DMS or
// walrelay makes of that row.
package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
)

// Event is one thing that happened to one aggregate, before it is written. Its limits are those of table outbox
// (sql/migrations/00002_outbox.sql).
type Event struct {
	// ID is a UUIDv7 made by the writer (uuid.NewV7). Subscribers recognise duplicates by it.
	ID uuid.UUID
	// AggregateType names the kind of aggregate: 1-100 of A-Z a-z 0-9 . _ -, a letter first.
	AggregateType string
	// AggregateID is 1-255 characters. It is the partition key on the stream, so events of one id keep their order.
	AggregateID string
	// AggregateVersion counts the aggregate's events from 1. Take it from the aggregate's own row, under its row lock and in this
	// transaction. With any other way of counting, two writers can commit in another order than they counted.
	AggregateVersion int64
	// Type names what happened, such as CarCreated. It has the same characters as AggregateType.
	Type string
	// Data is the payload, a JSON object of at most 60 KiB.
	Data json.RawMessage
	// Traceparent is the W3C traceparent of the request that caused the event, or empty.
	Traceparent string
}

// InvalidEventError says which part of an event cannot travel the path. Nothing was written.
type InvalidEventError struct {
	Field  string // column of table outbox
	Reason string
}

func (e *InvalidEventError) Error() string {
	return fmt.Sprintf("outbox event: %s %s", e.Field, e.Reason)
}

// Append writes the event through db, which must be the transaction that makes the change, or the Batch that carries it. It returns an
// *InvalidEventError for an event that could not travel the path. Through a Batch, what only the database can refuse is an error of
// Send.
func Append(ctx context.Context, db dbgen.DBTX, e Event) error {
	if err := e.validate(); err != nil {
		return err
	}
	return writeError(dbgen.New(db).OutboxInsert(ctx, e.params()))
}

func (e Event) params() dbgen.OutboxInsertParams {
	p := dbgen.OutboxInsertParams{
		ID: e.ID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.AggregateVersion,
		EventType: e.Type, EventData: e.Data,
	}
	if traceparent := e.Traceparent; traceparent != "" {
		p.Traceparent = &traceparent // not &e.Traceparent, which would move the whole event to the heap
	}
	return p
}

// writeError gives the database's refusals the type that validate's refusals have. validate cannot know the size exactly, because
// jsonb's text may be longer than the JSON that was sent (1e300 is spelled out, members are spaced).
func writeError(err error) error {
	if err == nil {
		return nil
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch {
		case pgErr.ConstraintName == "outbox_event_data_size_check":
			return &InvalidEventError{"event_data", fmt.Sprintf("is longer than %d bytes as jsonb text", MaxDataBytes)}
		case strings.HasPrefix(pgErr.Code, "22"): // data exception, for example a number with more digits than numeric has
			return &InvalidEventError{"event_data", "is refused by PostgreSQL: " + pgErr.Message}
		}
	}
	return fmt.Errorf("appending to outbox: %w", err)
}
