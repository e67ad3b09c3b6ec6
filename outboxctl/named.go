package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// traceIDPattern is a trace id as W3C writes it. As a UUID without dashes, which it could be, nobody here writes an event's id.
var traceIDPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// namedHelp says in a usage text what an operator may name an event by.
const namedHelp = "an event id, an aggregate id, a trace id or a traceparent"

// eventSet is the events that an operator means by one argument. At most one of traceID and aggregateID is set. Neither is set for an
// event id.
type eventSet struct {
	traceID, aggregateID string
	events               []uuid.UUID // by version or by time. An event id may have no row.
	more                 bool        // there are further events
}

// everyEvent is a limit for eventsNamed.
const everyEvent = math.MaxInt32 - 1

// eventsNamed looks a name up in table outbox. The name is an event id, an aggregate id, a trace id or a traceparent. It
// returns at most limit events. Without a row a UUID counts as an event id, because the stream and the log may still have it.
func eventsNamed(ctx context.Context, queries *dbgen.Queries, name string, limit int) (set eventSet, err error) {
	set.traceID = outbox.TraceID(name)
	if traceIDPattern.MatchString(name) {
		set.traceID = name
	}
	id, notUUID := uuid.Parse(name)
	if set.traceID == "" && notUUID == nil {
		_, err := queries.OutboxGet(ctx, id)
		if err == nil {
			return eventSet{events: []uuid.UUID{id}}, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return eventSet{}, fmt.Errorf("reading outbox: %w", err)
		}
	}
	if set.traceID != "" {
		set.events, err = queries.OutboxByTrace(ctx, dbgen.OutboxByTraceParams{TraceID: set.traceID, MaxRows: int32(limit) + 1})
	} else {
		set.aggregateID = name
		set.events, err = queries.OutboxByAggregate(ctx, dbgen.OutboxByAggregateParams{AggregateID: name, MaxRows: int32(limit) + 1})
	}
	if err != nil {
		return eventSet{}, fmt.Errorf("reading outbox for %s: %w", printable(name), err)
	}
	if set.traceID == "" && notUUID == nil && len(set.events) == 0 {
		return eventSet{events: []uuid.UUID{id}}, nil
	}
	if set.more = len(set.events) > limit; set.more {
		set.events = set.events[:limit]
	}
	return set, nil
}

// lookUp is eventsNamed on a session of its own.
func lookUp(ctx context.Context, s *Setup, name string, limit int) (eventSet, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return eventSet{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return eventsNamed(ctx, dbgen.New(conn), name, limit)
}
