package outboxctl

import (
	"context"
	"flag"
	"fmt"
	"regexp"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
)

// traceIDPattern is a trace id as W3C writes it. As a UUID without dashes, which it could be, nobody here writes an event's id.
var traceIDPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// maxOfTrace bounds the answer: a trace of a batch job may have any number of events.
const maxOfTrace = 100

// traceReport is how far every event of one trace came.
type traceReport struct {
	TraceID string         `json:"traceId"`
	Events  []*WhereReport `json:"events"`
	More    bool           `json:"more,omitempty"` // there are further events
}

func runWhere(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	maxRecords := flags.Int("max-records", MaxRecords, "read at most this many records of the stream; 0 reads to its end")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || *maxRecords < 0 {
		return UsageError("where: give one event id, or one trace id; see -h")
	}
	ofTrace := traceIDPattern.MatchString(rest[0])
	id, err := uuid.Parse(rest[0])
	if err != nil && !ofTrace {
		return UsageError(fmt.Sprintf("where: %q is neither an event id (a UUID, detail.eventId on the bus) nor a trace id (32 hex digits)", rest[0]))
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	ids, trace := []uuid.UUID{id}, traceReport{TraceID: rest[0], Events: []*WhereReport{}}
	if ofTrace {
		if ids, err = eventsOf(ctx, s, rest[0]); err != nil {
			return err
		}
		if trace.More = len(ids) > maxOfTrace; trace.More {
			ids = ids[:maxOfTrace]
		}
	}
	onBus := len(ids) > 0 && !trace.More
	for _, id := range ids {
		event, err := Where(ctx, s, id, *maxRecords)
		if err != nil {
			return err
		}
		trace.Events = append(trace.Events, event)
		onBus = onBus && len(event.Bus) > 0
	}
	var found report = trace
	if !ofTrace {
		found = trace.Events[0]
	}
	if err := p.print(found); err != nil {
		return err
	}
	if !onBus {
		return errFound
	}
	return nil
}

// eventsOf returns the ids of the events that the requests of a trace made, by time, and at most one more than are shown.
func eventsOf(ctx context.Context, s *Setup, traceID string) ([]uuid.UUID, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ids, err := dbgen.New(conn).OutboxByTrace(ctx, dbgen.OutboxByTraceParams{TraceID: traceID, MaxRows: maxOfTrace + 1})
	if err != nil {
		return nil, fmt.Errorf("reading outbox by trace: %w", err)
	}
	return ids, nil
}
