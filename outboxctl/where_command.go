package outboxctl

import (
	"context"
	"flag"
)

// maxNamed bounds the answer, because a trace of a batch job, or an old aggregate, may have any number of events.
const maxNamed = 100

// namedReport is how far every event of one trace or of one aggregate came.
type namedReport struct {
	TraceID     string         `json:"traceId,omitempty"`
	AggregateID string         `json:"aggregateId,omitempty"`
	Events      []*WhereReport `json:"events"`
	More        bool           `json:"more,omitempty"` // there are further events
}

func runWhere(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	maxRecords := flags.Int("max-records", MaxRecords, "read at most this many records of the stream; 0 reads to its end")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || *maxRecords < 0 {
		return UsageError("where: name one thing: " + namedHelp + "; see -h")
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	set, err := lookUp(ctx, s, rest[0], maxNamed)
	if err != nil {
		return err
	}
	all := namedReport{TraceID: set.traceID, AggregateID: set.aggregateID, Events: []*WhereReport{}, More: set.more}
	onBus := len(set.events) > 0 && !set.more
	for _, id := range set.events {
		event, err := Where(ctx, s, id, *maxRecords)
		if err != nil {
			return err
		}
		all.Events = append(all.Events, event)
		onBus = onBus && len(event.Bus) > 0
	}
	var found report = all
	if set.traceID == "" && set.aggregateID == "" {
		found = all.Events[0]
	}
	if err := p.print(found); err != nil {
		return err
	}
	if !onBus {
		return errFound
	}
	return nil
}
