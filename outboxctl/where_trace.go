package outboxctl

import (
	"context"
	"fmt"
	"io"
	"regexp"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
)

// traceIDPattern is a trace id as W3C writes it. As a UUID without dashes, which it could be, nobody here writes an event's id.
var traceIDPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// maxOfTrace bounds the answer: a trace of a batch job may have any number of events.
const maxOfTrace = 100

// traceReport is the way of every event of one trace.
type traceReport struct {
	TraceID string         `json:"traceId"`
	Events  []*whereReport `json:"events"`
	More    bool           `json:"more,omitempty"` // there are further events
}

func (r traceReport) text(w io.Writer) {
	for _, event := range r.Events {
		event.text(w)
	}
	if r.More {
		fmt.Fprintf(w, "where: only the first %d events of the trace: the others have the same traceparent in table outbox\n", maxOfTrace)
	}
	if len(r.Events) == 0 {
		fmt.Fprintf(w, "where: no row of trace %s: it made no event, or its rows are purged\n", r.TraceID)
	}
}

func whereTrace(ctx context.Context, p *program, traceID string, maxRecords int) error {
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	ids, err := eventsOf(ctx, s, traceID)
	if err != nil {
		return err
	}
	report := traceReport{TraceID: traceID, Events: []*whereReport{}}
	if report.More = len(ids) > maxOfTrace; report.More {
		ids = ids[:maxOfTrace]
	}
	onBus := len(ids) > 0 && !report.More
	for _, id := range ids {
		event, err := where(ctx, s, id, maxRecords)
		if err != nil {
			return err
		}
		report.Events = append(report.Events, event)
		onBus = onBus && len(event.Bus) > 0
	}
	if err := p.print(report); err != nil {
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
