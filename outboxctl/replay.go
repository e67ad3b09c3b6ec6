package outboxctl

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/outbox"
)

const (
	// replayPage is how many rows are read at once: 500 of the largest are 30 MB.
	replayPage = 500
	// slotPatience is how long the slot's confirmed position may stand still before the rows count as not relayed. A relay that runs
	// moves it about once a second.
	slotPatience = 30 * time.Second
)

// replayOptions selects the rows to which all options apply.
type replayOptions struct {
	names                                []string    // of events, aggregates or traces
	ids                                  []uuid.UUID // of the named events
	aggregateType, aggregateID, typeName string
	fromVersion, toVersion               int64     // of the aggregate, both included; 0: no bound
	from, to                             time.Time // created_at, [from, to)
	all                                  bool
	rate                                 float64
	replayID                             string
	dryRun                               bool
}

func (o replayOptions) selects() bool {
	return o.all || len(o.names) > 0 || o.aggregateType != "" || o.aggregateID != "" || o.typeName != "" || !o.from.IsZero() || !o.to.IsZero()
}

// runReplay sends events again from their rows, over the stream, with a marker that subscribers see. Their ids are the old ones.
func runReplay(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	var o replayOptions
	flags.Func("id", "an `id`: "+namedHelp+"; may be given more than once", func(s string) error {
		o.names = append(o.names, s)
		return nil
	})
	flags.StringVar(&o.aggregateType, "aggregate-type", "", "events of this `type` of aggregate, such as Car")
	flags.StringVar(&o.aggregateID, "aggregate-id", "", "events of the aggregate with this `id`")
	flags.Int64Var(&o.fromVersion, "from-version", 0, "with --aggregate-id, the first `version` of the aggregate; default the oldest")
	flags.Int64Var(&o.toVersion, "to-version", 0, "with --aggregate-id, the last `version` of the aggregate; default the newest")
	flags.StringVar(&o.typeName, "event-type", "", "events of this `type`, such as CarCreated")
	flags.Func("from", "events written at this `time` or later, such as 2026-03-01T12:00:00Z", timeFlag(&o.from))
	flags.Func("to", "events written before this `time`; default now", timeFlag(&o.to))
	flags.BoolVar(&o.all, "all", false, "every event that is still in the table")
	flags.Float64Var(&o.rate, "rate", 100, "events a second")
	flags.StringVar(&o.replayID, "replay-id", "", "the `marker`: subscribers get replay/<marker> in resources; default a new one")
	flags.BoolVar(&o.dryRun, "dry-run", false, "count the events, but send none")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return UsageError("replay: takes only flags; an event is named with --id")
	case !o.selects():
		return UsageError("replay: say which events: --id, --aggregate-type, --aggregate-id, --event-type, --from, --to, or --all")
	case o.aggregateID == "" && (o.fromVersion != 0 || o.toVersion != 0):
		return UsageError("replay: --from-version and --to-version are of one aggregate: name it with --aggregate-id")
	case o.fromVersion < 0 || o.toVersion < 0 || o.toVersion > 0 && o.toVersion < o.fromVersion:
		return UsageError("replay: --from-version must not be negative, and --to-version not below it")
	case o.rate <= 0:
		return UsageError("replay: --rate must be above 0")
	case o.replayID != "" && !outbox.ValidReplayID(o.replayID):
		return UsageError(fmt.Sprintf("replay: --replay-id %q: use 1 to 64 of A-Z a-z 0-9 . _ -", o.replayID))
	}
	if o.replayID == "" {
		o.replayID = time.Now().UTC().Format("20060102T150405Z-") + strings.ToLower(rand.Text()[:4])
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	report, err := replay(ctx, p, s, o)
	if report != nil {
		err = errors.Join(p.print(report), err)
	}
	if err == nil && report.Selected == 0 && !o.all {
		return errors.New("replay: these flags select no event: nothing was sent")
	}
	return err
}

type replayReport struct {
	ReplayID   string    `json:"replayId"`
	DryRun     bool      `json:"dryRun"`
	Selected   int64     `json:"selected"`
	Aggregates int64     `json:"aggregates"`
	Oldest     time.Time `json:"oldest,omitzero"` // created_at of the selected events
	Newest     time.Time `json:"newest,omitzero"`
	Sent       int       `json:"sent"` // accepted by Kinesis
}

func (r *replayReport) text(w io.Writer) {
	what := fmt.Sprintf("%s of %s", plural.Of(r.Selected, "event"), plural.Of(r.Aggregates, "aggregate"))
	if r.Selected > 0 {
		what += fmt.Sprintf(", written from %s to %s", r.Oldest.UTC().Format(time.RFC3339), r.Newest.UTC().Format(time.RFC3339))
	}
	if r.DryRun {
		fmt.Fprintf(w, "dry run: would send %s\n", what)
		return
	}
	fmt.Fprintf(w, "replay %s: sent %d of %s\n", r.ReplayID, r.Sent, what)
}

// replay returns a report, also beside an error once it has begun to send.
func replay(ctx context.Context, p *program, s *Setup, o replayOptions) (*replayReport, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	queries := dbgen.New(conn)
	if !o.dryRun {
		unlock, err := lockSending(ctx, conn, "replay "+o.replayID)
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		defer unlock()
	}
	if o.to.IsZero() {
		// Rows that are written from now on come by themselves.
		if o.to, err = queries.ServerClock(ctx); err != nil {
			return nil, fmt.Errorf("reading the database's clock: %w", err)
		}
	}
	for _, name := range o.names {
		found, err := eventsNamed(ctx, queries, name, everyEvent)
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		if len(found.events) == 0 {
			return nil, fmt.Errorf("replay: no row is of %s: never committed, or purged; nothing was sent", printable(name))
		}
		o.ids = append(o.ids, found.events...)
	}
	if missing, err := queries.ReplayMissing(ctx, o.ids); err != nil {
		return nil, fmt.Errorf("looking for the ids: %w", err)
	} else if len(missing) > 0 {
		return nil, fmt.Errorf("replay: no row for %d of %s, such as %s: never committed, or purged; nothing was sent", len(missing), plural.Of(len(o.ids), "id"), missing[0])
	}
	counted, err := queries.ReplayCount(ctx, dbgen.ReplayCountParams{
		Ids: o.ids, AggregateType: o.aggregateType, AggregateID: o.aggregateID, EventType: o.typeName,
		FromVersion: o.fromVersion, ToVersion: o.toVersion, CreatedFrom: o.from, CreatedTo: o.to,
	})
	if err != nil {
		return nil, fmt.Errorf("counting: %w", err)
	}
	report := &replayReport{ReplayID: o.replayID, DryRun: o.dryRun, Selected: counted.Events, Aggregates: counted.Aggregates}
	if counted.Events > 0 {
		report.Oldest, report.Newest = counted.Oldest, counted.Newest
	}
	if counted.Events == 0 || o.dryRun {
		return report, nil
	}
	fmt.Fprintf(p.progress, "replay %s: %s, %g a second\n", o.replayID, plural.Of(counted.Events, "event"), o.rate)
	if err := sendRows(ctx, p, s, queries, o, report); err != nil {
		return report, fmt.Errorf("replay %s: %d of %s sent: %w; run it again: what comes twice has the same event id",
			o.replayID, report.Sent, plural.Of(report.Selected, "event"), err)
	}
	return report, nil
}

// sendRows sends page by page, each whole before the next, so that the versions of an aggregate stay in order.
func sendRows(ctx context.Context, p *program, s *Setup, queries *dbgen.Queries, o replayOptions, report *replayReport) error {
	to := newPutter(s, o.rate)
	in := dbgen.ReplayPageParams{
		Ids: o.ids, AggregateType: o.aggregateType, AggregateID: o.aggregateID, EventType: o.typeName,
		FromVersion: o.fromVersion, ToVersion: o.toVersion, CreatedFrom: o.from, CreatedTo: o.to,
		MaxRows: replayPage,
	}
	told := time.Now()
	for {
		page, err := queries.ReplayPage(ctx, in)
		if err != nil {
			return fmt.Errorf("reading outbox behind %s %s: %w", in.AfterType, printable(in.AfterID), err)
		}
		records, err := replayRecords(page, o.replayID)
		if err != nil {
			return err
		}
		if err := awaitRelayed(ctx, queries, s.Slot, time.Now); err != nil {
			return err
		}
		err = to.put(ctx, records)
		for _, r := range records {
			if r.sent {
				report.Sent++
			}
		}
		if err == nil && len(page) < replayPage && int64(report.Sent) < report.Selected {
			err = errors.New("the others were purged meanwhile, or index outbox_pkey does not lead to them (then " + mendIndex + ")")
		}
		if err != nil || len(page) < replayPage {
			return err
		}
		last := page[len(page)-1].Outbox
		in.AfterType, in.AfterID, in.AfterVersion = last.AggregateType, last.AggregateID, last.AggregateVersion
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			fmt.Fprintf(p.progress, "%d of %d\n", report.Sent, report.Selected)
		}
	}
}

// awaitRelayed returns after the slot has confirmed everything that this session has seen. Otherwise a row that the relay has not
// sent yet could arrive before a lower version of its aggregate that is not replayed. handlers/retention says why the position
// proves it. A relay with a backlog takes its time, so the wait ends with an error only if the position does not move.
func awaitRelayed(ctx context.Context, queries *dbgen.Queries, slot string, now func() time.Time) error {
	position, err := queries.RetentionPosition(ctx)
	if err != nil {
		return fmt.Errorf("noting the position of the WAL: %w", err)
	}
	var moved time.Time
	confirmed := ""
	for {
		state, err := queries.RetentionSlot(ctx, dbgen.RetentionSlotParams{Slot: slot, LSN: position.LSN})
		at := now()
		if state.Confirmed != confirmed {
			confirmed, moved = state.Confirmed, at
		}
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("replication slot %s does not exist: set SLOT_NAME to the slot of the path, walrelay's or the DMS task's "+
				"(SELECT slot_name, plugin FROM pg_replication_slots)", slot)
		case err != nil:
			return fmt.Errorf("looking at slot %s: %w", slot, err)
		case state.Passed:
			return nil
		case at.Sub(moved) > slotPatience:
			return fmt.Errorf("replication slot %s (wal_status %s, active %t) has confirmed %s, no further for %s, and the rows wait for %s: does the relay run? "+
				"What it has not sent yet comes by itself, and in order", slot, state.WalStatus, state.Active, state.Confirmed, slotPatience, position.LSN)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// mendIndex is the remedy for an outbox_pkey that does not serve a replay.
const mendIndex = "REINDEX TABLE public.outbox"

// replayRecords makes the records of a page. It refuses rows that come in another order than the server compares by. The page then comes
// from an index that has another order, and between two pages that index would lead past rows.
func replayRecords(rows []dbgen.ReplayPageRow, replayID string) ([]*outgoing, error) {
	records := make([]*outgoing, len(rows))
	for i, page := range rows {
		row := page.Outbox
		if page.Misplaced {
			return nil, fmt.Errorf("index outbox_pkey has %s %s at a place that the server no longer gives it: %s",
				row.AggregateType, printable(row.AggregateID), mendIndex)
		}
		line, err := outbox.Record{Row: row, Operation: outbox.OperationLoad, Timestamp: time.Now(), Replay: replayID}.AppendJSON(nil)
		if err != nil {
			return nil, err
		}
		records[i] = &outgoing{key: row.AggregateID, data: line}
	}
	return records, nil
}
