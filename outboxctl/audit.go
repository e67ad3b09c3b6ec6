package outboxctl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/plural"
)

// auditFlags are the window and how to judge what is in it.
type auditFlags struct {
	since, grace, late time.Duration
	from, until        time.Time
	aggregateType      string
	limit              int
}

func runAudit(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	var f auditFlags
	flags.DurationVar(&f.since, "since", 24*time.Hour, "window: rows created up to this long ago")
	flags.Func("from", "window: rows created at this `time` or later, such as 2026-03-01T12:00:00Z, in place of --since", timeFlag(&f.from))
	flags.Func("until", "window: rows created before this `time`; now when empty", timeFlag(&f.until))
	flags.DurationVar(&f.grace, "grace", time.Minute, "younger events are pending, not missing: the path and the log take their time")
	flags.DurationVar(&f.late, "late", 5*time.Minute, "time from created_at to the bus after which an event is late")
	flags.StringVar(&f.aggregateType, "aggregate-type", "", "only events of this `type` of aggregate")
	flags.IntVar(&f.limit, "limit", 20, "list at most this many events of each kind; counts are always exact")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return UsageError(fmt.Sprintf("audit: what is %q? See -h", rest[0]))
	}
	if f.since <= 0 || f.grace < 0 || f.late < 0 || f.limit < 0 {
		return UsageError("audit: --since must be more than 0, and --grace, --late and --limit not less")
	}
	if _, _, err := f.window(time.Now()); err != nil { // before anything is connected to
		return err
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	report, err := audit(ctx, s, newBusLog(s), f, p.progress)
	if err != nil {
		return err
	}
	if err := p.print(report); err != nil {
		return err
	}
	if report.Missing.Count > 0 {
		return errFound
	}
	if f.aggregateType != "" && report.Committed+report.Pending+report.Unknown.Count == 0 {
		return fmt.Errorf("audit: no row and no entry in this window is of aggregate type %s: nothing was audited", printable(f.aggregateType))
	}
	return nil
}

// auditReport is what an audit found.
type auditReport struct {
	From          time.Time `json:"from"`  // rows created at this time
	Until         time.Time `json:"until"` // and before this
	AggregateType string    `json:"aggregateType,omitempty"`
	LogGroup      string    `json:"logGroup"`
	Slot          string    `json:"slot"`
	verdict
	grace, late time.Duration
}

// clockSkew is how much earlier than its row's created_at an entry may seem to be. The database and the log
// have two clocks, and the log has whole seconds if it takes EventBridge's time.
const clockSkew = time.Minute

// audit reads the rows first and the log afterwards. An event that comes between the two is then on the bus and
// not in the table, and counts as pending. In the other order it would be missing. No transaction stays open
// during the search of the log, which may take minutes.
func audit(ctx context.Context, s *Setup, log busLog, f auditFlags, progress io.Writer) (*auditReport, error) {
	report := &auditReport{AggregateType: f.aggregateType, LogGroup: log.group, grace: f.grace, late: f.late}
	r := rules{grace: f.grace, late: f.late, limit: f.limit}
	events := comparison{}
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT now()").Scan(&r.now); err != nil {
			return err
		}
		r.now = r.now.UTC()
		if report.From, report.Until, err = f.window(r.now); err != nil {
			return err
		}
		return readRows(ctx, tx, s.Slot, report, events.addRow)
	})
	if err != nil {
		return nil, fmt.Errorf("reading outbox: %w", err)
	}
	if err := events.refuseForgotten(ctx, log, r.now); err != nil {
		return nil, err
	}
	seen := 0
	err = log.entries(ctx, report.From.Add(-clockSkew), time.Now().Add(clockSkew), func(e busEntry) error {
		if seen++; seen%100_000 == 0 {
			fmt.Fprintf(progress, "audit: %d entries of %s read\n", seen, log.group)
		}
		if e.CreatedAt.Before(report.From) || !e.CreatedAt.Before(report.Until) || f.aggregateType != "" && e.AggregateType != f.aggregateType {
			return nil
		}
		events.addEntry(e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	report.verdict = events.judge(r)
	report.Slot = s.Slot
	if err := report.searchStream(ctx, newStreamReader(s)); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fmt.Fprintf(progress, "audit: not known whether events that the slot has passed are on the stream: %v\n", err)
	}
	return report, nil
}

// refuseForgotten returns an error if the log has forgotten the time of the oldest row. Such rows would all count as missing. now is the
// database's time.
func (c comparison) refuseForgotten(ctx context.Context, log busLog, now time.Time) error {
	oldest, kept := now, now.AddDate(0, 0, -logDays)
	for _, e := range c {
		oldest = earliest(oldest, e.CreatedAt)
	}
	if oldest.After(kept) {
		return nil
	}
	// A log of another stack may keep its entries for longer, and the local one has no retention.
	reaches, err := log.reachesBackTo(ctx, oldest)
	if err != nil || reaches {
		return err
	}
	return UsageError(fmt.Sprintf("audit: the window has rows of %s. The log of the bus, %s, keeps %d days, so older events would all count as missing: begin at %s or later (--from)",
		oldest.Format(time.RFC3339), log.group, logDays, kept.Add(time.Hour).Format(time.RFC3339))) // an hour to run it in
}

func (f auditFlags) window(now time.Time) (from, until time.Time, err error) {
	from, until = now.Add(-f.since), now
	if !f.from.IsZero() {
		from = f.from
	}
	if !f.until.IsZero() {
		until = f.until
	}
	if !from.Before(until) {
		return from, until, UsageError(fmt.Sprintf("audit: the window from %s to %s is empty: change --from, --since or --until",
			from.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return from, until, nil
}

// readRows calls add for the window's rows.
func readRows(ctx context.Context, tx pgx.Tx, slot string, report *auditReport, add func(auditRow)) error {
	rows, err := tx.Query(ctx, `SELECT id, aggregate_type, aggregate_id, aggregate_version, created_at, `+confirmedBySlot+` FROM outbox
		WHERE created_at >= $2 AND created_at < $3 AND ($4 = '' OR aggregate_type = $4)`, slot, report.From, report.Until, report.AggregateType)
	if err != nil {
		return err
	}
	var r auditRow
	_, err = pgx.ForEachRow(rows, []any{&r.EventID, &r.AggregateType, &r.AggregateID, &r.AggregateVersion, &r.CreatedAt, &r.Passed}, func() error {
		r.CreatedAt = r.CreatedAt.UTC()
		add(r)
		return nil
	})
	return err
}

func (r *auditReport) text(w io.Writer) {
	of := ""
	if r.AggregateType != "" {
		of = " of " + r.AggregateType
	}
	fmt.Fprintf(w, "audit: rows%s created from %s to %s, against %s\n\n", of, r.From.Format(time.RFC3339), r.Until.Format(time.RFC3339), r.LogGroup)
	for _, line := range []struct {
		name  string
		count int
		note  string
	}{
		{"committed", r.Committed, "rows in outbox"},
		{"on the bus", r.OnBus, "of them"},
		{"missing", r.Missing.Count, "of them, not on the bus"},
		{"pending", r.Pending, "not (yet) in both, younger than " + short(r.grace)},
		{"duplicates", r.Duplicates.Count, "further copies"},
		{"replayed", r.Replayed, "copies with a replay marker"},
		{"late", r.Late.Count, "more than " + short(r.late) + " from created_at to the bus"},
		{"out of order", r.OutOfOrder.Count, "first seen after a later version of the aggregate"},
		{"unknown", r.Unknown.Count, "on the bus, not in outbox: purged since, or never committed"},
	} {
		fmt.Fprintf(w, "  %-12s %9d  %s\n", line.name, line.count, line.note)
	}
	for _, list := range []struct {
		name string
		findings
	}{{"missing", r.Missing}, {"duplicates", r.Duplicates}, {"late", r.Late}, {"out of order", r.OutOfOrder}, {"unknown", r.Unknown}} {
		if len(list.Events) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", list.name)
		for _, e := range list.Events {
			fmt.Fprintf(w, "  %s  %s %s v%d  created %s", e.EventID, printable(e.AggregateType), printable(e.AggregateID), e.AggregateVersion, e.CreatedAt.Format(time.RFC3339Nano))
			if e.ArrivedAt != nil {
				fmt.Fprintf(w, ", on the bus +%s", e.ArrivedAt.Sub(e.CreatedAt).Round(time.Millisecond))
			}
			if e.Copies > 1 {
				fmt.Fprintf(w, ", %d copies", e.Copies)
			}
			switch {
			case e.OnStream != nil && *e.OnStream:
				fmt.Fprint(w, ", on the stream")
			case e.OnStream != nil:
				fmt.Fprintf(w, ", not on the stream, and slot %s has confirmed past it: only a replay brings it", r.Slot)
			case e.SlotPassed:
				fmt.Fprintf(w, ", slot %s has confirmed past it: it is on the stream, or only a replay brings it", r.Slot)
			}
			fmt.Fprintln(w)
		}
	}
	if r.Missing.Count > 0 {
		fmt.Fprint(w, "\nWhere one stopped: outboxctl where <event id>\n")
	}
	result := "ok"
	if r.Missing.Count > 0 {
		result = "MISSING"
	}
	fmt.Fprintf(w, "\naudit: %s: %s, %d missing, %d pending, %s, %d replayed, %d late, %d out of order, %d unknown\n", result,
		plural.Of(r.Committed, "event"), r.Missing.Count, r.Pending, plural.Of(r.Duplicates.Count, "duplicate"), r.Replayed, r.Late.Count, r.OutOfOrder.Count, r.Unknown.Count)
}

// short is a duration without its zero parts: 5m instead of 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
