package outboxctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/internal/plural"
)

var reasons = []string{string(cdcconsumer.ReasonUndecodable), string(cdcconsumer.ReasonRefused), reasonDiscarded, reasonUnreadable}

// redriveOptions is what to do with which messages.
type redriveOptions struct {
	id, reason string
	events     []uuid.UUID // that id names in table outbox
	all        bool
	dryRun     bool
	rate       float64
	patience   time.Duration // with others who hold messages
	wait       time.Duration // for what comes back
}

func (o redriveOptions) chooses(m *message) bool {
	return (o.all || o.id != "" && o.names(m) || o.id == "" && o.reason != "") && (o.reason == "" || o.reason == m.reason)
}

// names reports whether id is of the message. The message itself knows its aggregate, so purged rows do not matter there.
func (o redriveOptions) names(m *message) bool {
	if m.has(o.id) || m.parked.AggregateID == o.id {
		return true
	}
	return slices.ContainsFunc(o.events, func(id uuid.UUID) bool { return m.has(id.String()) })
}

// runRedrive sends parked events onto the stream again, the way they came. It deletes a message after Kinesis has accepted its
// records.
func runRedrive(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	o := redriveOptions{patience: claimPatience}
	flags.StringVar(&o.reason, "reason", "", "only messages with this `reason`: "+strings.Join(reasons, ", "))
	flags.BoolVar(&o.all, "all", false, "all messages")
	flags.BoolVar(&o.dryRun, "dry-run", false, "look for the records and warn, but send and delete nothing")
	flags.Float64Var(&o.rate, "rate", 100, "records a second")
	flags.DurationVar(&o.wait, "wait", 10*time.Second, "look so long for records that are parked again")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	verb := ""
	if len(rest) > 0 && (rest[0] == "list" || rest[0] == "show") {
		verb, rest = rest[0], rest[1:]
	}
	if len(rest) == 1 {
		o.id = rest[0]
	}
	switch {
	case len(rest) > 1:
		return UsageError("redrive: one id at a time, or --reason, or --all")
	case o.reason != "" && !slices.Contains(reasons, o.reason):
		return UsageError(fmt.Sprintf("redrive: --reason %s: use one of %s", o.reason, strings.Join(reasons, ", ")))
	case o.rate <= 0:
		return UsageError("redrive: --rate must be above 0")
	case o.wait < 0:
		return UsageError("redrive: --wait must not be below 0")
	case verb == "show" && o.id == "":
		return UsageError("redrive show: name " + namedHelp + ", or a message id; redrive list has them")
	case verb == "list" && o.id != "":
		return UsageError("redrive list: takes no id; redrive show does")
	case verb == "" && o.id == "" && o.reason == "" && !o.all:
		return UsageError("redrive: name " + namedHelp + ", a message id, --reason or --all; redrive list shows what there is")
	case o.id != "" && (o.all || o.reason != ""):
		return UsageError("redrive: an id, or --reason, or --all")
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	if o.id != "" {
		found, err := lookUp(ctx, s, o.id, everyEvent)
		if err != nil {
			return fmt.Errorf("redrive: %w", err)
		}
		o.events = found.events
	}
	switch verb {
	case "list":
		o.all = o.reason == ""
		return redriveList(ctx, p, s, o)
	case "show":
		return redriveShow(ctx, p, s, o)
	default:
		return redrive(ctx, p, s, o)
	}
}

// choose returns the messages that are chosen.
func (o redriveOptions) choose(all []*message) (chosen []*message, err error) {
	for _, m := range all {
		if o.chooses(m) {
			chosen = append(chosen, m)
		}
	}
	if o.id != "" && len(chosen) == 0 {
		err = fmt.Errorf("redrive: none of the %s is, or is of, %s", plural.Of(len(all), "message"), printable(o.id))
	}
	return chosen, err
}

// look gives all messages back before it prints anything, because a reader such as head ends the program when it has enough.
func (o redriveOptions) look(ctx context.Context, p *program, s *Setup, keeps func(*message) bool) (chosen []*message, warnings []string, err error) {
	warnings = []string{}
	all, whole, err := newHolding(s, keeps).look(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !whole {
		warnings = append(warnings, "there are more messages: someone else is looking at them, or they are too many; run it again in a minute")
		fmt.Fprintln(p.progress, "warning:", warnings[0])
	}
	chosen, err = o.choose(all)
	return chosen, warnings, err
}

func redriveList(ctx context.Context, p *program, s *Setup, o redriveOptions) error {
	chosen, warnings, err := o.look(ctx, p, s, noPayload)
	if err != nil {
		return err
	}
	list := redriveListing{Messages: []messageReport{}, Warnings: warnings}
	for _, m := range chosen {
		list.Messages = append(list.Messages, m.report())
	}
	return p.print(list)
}

func redriveShow(ctx context.Context, p *program, s *Setup, o redriveOptions) error {
	chosen, warnings, err := o.look(ctx, p, s, o.chooses)
	if err != nil {
		return err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r := resolver{newStreamReader(s), dbgen.New(conn)}
	shown := redriveShown{Messages: []messageShown{}, Warnings: warnings}
	for _, m := range chosen {
		one := messageShown{messageReport: m.report()}
		records, err := r.resolve(ctx, m)
		if err != nil {
			one.Problem = err.Error()
			if m.reason != reasonDiscarded {
				one.Payload = []payloadReport{newPayload(m.parked.SequenceNumber, m.parked.PartitionKey, m.parked.Data)}
			}
		}
		for _, rec := range records {
			one.Payload = append(one.Payload, newPayload(rec.sequence, rec.key, rec.data))
		}
		shown.Messages = append(shown.Messages, one)
	}
	return p.print(shown)
}

// claimPatience is longer than the minute that SQS's counts may be wrong for after a change (GetQueueAttributes). A redrive right after
// another one would else miss messages that the other one has deleted.
const claimPatience = 90 * time.Second

// takeWhole takes all messages, and waits up to patience for those that are hidden from us. unseen is nil if it took all of them, and says
// why not otherwise. An older version of an aggregate may then be among the others, and a newer one must not go before it.
func takeWhole(ctx context.Context, p *program, h *holding, patience time.Duration) (unseen, err error) {
	for deadline := time.Now().Add(patience); ; {
		if err := h.claim(ctx); err != nil {
			return nil, err
		}
		// What is held must not come again while we wait.
		if err := h.hide(ctx, h.messages(), redriveHide); err != nil {
			return nil, err
		}
		if h.full {
			return fmt.Errorf("a queue has more than %d MiB of these messages, and an older version may be among the rest, so nothing is sent: redrive one aggregate at a time", h.limit>>20), nil
		}
		n, err := h.othersHold(ctx)
		if err != nil || n == 0 {
			return nil, err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("someone else is looking at %s, and an older version may be among them, so nothing is sent: run it again in a minute", plural.Of(n, "message")), nil
		}
		fmt.Fprintf(p.progress, "someone else is looking at %s: waiting up to %s\n", plural.Of(n, "message"), time.Until(deadline).Round(time.Second))
	}
}

// redrive sends the chosen messages' records again and deletes each message whose records are all on the stream.
func redrive(ctx context.Context, p *program, s *Setup, o redriveOptions) (err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if !o.dryRun {
		unlock, err := lockSending(ctx, conn, "redrive")
		if err != nil {
			return fmt.Errorf("redrive: %w", err)
		}
		defer unlock()
	}
	// Then the messages are hidden no longer, and someone else may be at them.
	ctx, cancel := context.WithTimeout(ctx, redriveHide-time.Minute)
	defer cancel()
	h := newHolding(s, o.chooses)
	defer func() { err = errors.Join(err, h.releaseAll(ctx)) }()
	unseen, err := takeWhole(ctx, p, h, o.patience)
	if err != nil {
		return err
	}
	all := h.messages()
	chosen, err := o.choose(all)
	if err == nil && o.reason != "" && len(chosen) == 0 {
		err = fmt.Errorf("redrive: none of the %s has the reason %s", plural.Of(len(all), "message"), o.reason)
	}
	if err != nil {
		return errors.Join(err, unseen)
	}
	queries := dbgen.New(conn)
	plan, err := newRedrivePlan(ctx, resolver{newStreamReader(s), queries}, chosen)
	if err != nil {
		return err
	}
	late, err := lateness(ctx, queries, plan.records)
	if err != nil {
		return err
	}
	warnings := slices.Concat(late, leftBehind(all, chosen), plan.bystanders())
	for _, w := range warnings {
		fmt.Fprintln(p.progress, "warning:", w)
	}
	if unseen != nil {
		warnings = append(warnings, unseen.Error()) // which is the last line of progress, too
	}
	failed := unseen
	if !o.dryRun && unseen == nil {
		failed = newPutter(s, o.rate).put(ctx, plan.outgoing())
	}
	report := plan.settle(ctx, h, o.dryRun, failed)
	report.Warnings = slices.Concat([]string{}, warnings)
	err = errors.Join(h.releaseAll(ctx), failed)
	if !o.dryRun && report.Records > 0 && o.wait > 0 && err == nil {
		fmt.Fprintf(p.progress, "redrive: looking for up to %s whether what was sent is parked again\n", o.wait)
		report.CameBack, err = plan.cameBack(ctx, s, all, o.wait)
	}
	err = errors.Join(err, p.print(report))
	if err == nil && report.Failed+len(report.CameBack) > 0 {
		return errFound
	}
	return err
}

// redrivePlan is what goes, in stream order, and for which messages.
type redrivePlan struct {
	messages []*message
	records  []*record
	of       map[*message][]*record
	problems map[*message]error
}

// newRedrivePlan resolves the messages, which are in the order of their first record. Each record, and each event, is sent
// once, however many messages are about it. There may be several, because parking, too, is at least once, a replay is parked
// like the event that it repeats, and the ranges of discarded batches overlap. So the records are in stream order.
func newRedrivePlan(ctx context.Context, r resolver, messages []*message) (*redrivePlan, error) {
	plan := &redrivePlan{messages: messages, of: map[*message][]*record{}, problems: map[*message]error{}}
	known := map[string]*record{}
	for _, m := range messages {
		found, err := r.resolve(ctx, m)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			plan.problems[m] = err
			continue
		}
		for _, rec := range found {
			is := rec.shard + "/" + rec.sequence
			if rec.event != nil {
				is = rec.event.Row.ID.String()
			}
			if known[is] == nil {
				known[is] = rec
				plan.records = append(plan.records, rec)
			}
			plan.of[m] = append(plan.of[m], known[is])
		}
	}
	return plan, nil
}

// bystanders warns of records that were not discarded and lie between discarded ones. With a parallelization factor a batch is
// only some of the records between its first and its last sequence number, and no message says which.
func (plan *redrivePlan) bystanders() (warnings []string) {
	for _, m := range plan.messages {
		if more := len(plan.of[m]) - m.discarded.Batch.Size; m.reason == reasonDiscarded && more > 0 {
			warnings = append(warnings, fmt.Sprintf("message %s: %d records were discarded and %d others lie between them: these come again as duplicates",
				m.id, m.discarded.Batch.Size, more))
		}
	}
	return warnings
}

func (plan *redrivePlan) outgoing() (all []*outgoing) {
	for _, r := range plan.records {
		all = append(all, &r.outgoing)
	}
	return all
}

// settle deletes the messages whose records are all on the stream, and returns what became of each.
func (plan *redrivePlan) settle(ctx context.Context, h *holding, dryRun bool, failed error) redriveReport {
	report := redriveReport{DryRun: dryRun, Messages: []redriveOutcome{}}
	for _, r := range plan.records {
		if r.sent || dryRun {
			report.Records++
		}
	}
	for _, m := range plan.messages {
		one := redriveOutcome{messageReport: m.report(), Records: len(plan.of[m])}
		err := plan.problems[m]
		if err == nil && slices.ContainsFunc(plan.of[m], func(r *record) bool { return !r.sent }) && !dryRun {
			err = fmt.Errorf("not on the stream: %w", failed)
		}
		if err == nil && !dryRun {
			err = h.delete(ctx, m)
			one.Redriven = err == nil
		}
		if err != nil {
			one.Problem = err.Error()
			report.Failed++
		}
		report.Messages = append(report.Messages, one)
	}
	return report
}
