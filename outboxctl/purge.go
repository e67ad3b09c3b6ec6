package outboxctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/plural"
)

// runPurge deletes rows of outbox by hand, by the rules of the scheduled function. A row must be old enough, and confirmed
// by the slot.
func runPurge(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	var o retention.Config
	days := flags.String("days", "", "delete rows that are older than so many `days`; default RETENTION_DAYS")
	flags.IntVar(&o.Batch, "batch", 500, "delete so many `rows` at a time")
	flags.DurationVar(&o.Wait, "wait", 30*time.Second, "wait so long for the slot to confirm")
	dryRun := flags.Bool("dry-run", false, "count the rows, but delete none")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return UsageError("purge: takes only flags")
	case o.Batch < 1:
		return UsageError("purge: --batch must be above 0")
	case o.Wait <= 0:
		return UsageError("purge: --wait must be above 0")
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	if o.Days = s.RetentionDays; *days != "" {
		if o.Days, err = strconv.Atoi(*days); err != nil {
			return UsageError(fmt.Sprintf("purge: %q is not a number of days", *days))
		}
	} else if o.Days == 0 { // a guess may be shorter than the stage's retentionDays, and the rows are the only copies after the stream
		return UsageError("purge: how long do rows stay? Give --days, or set RETENTION_DAYS to the stage's retentionDays")
	}
	stream, err := kinesis.NewFromConfig(s.AWS).DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &s.Stream})
	if err != nil {
		return fmt.Errorf("asking stream %s for its retention: %w", s.Stream, err)
	}
	o.Slot = s.Slot
	o.StreamRetention = time.Duration(aws.ToInt32(stream.StreamDescriptionSummary.RetentionPeriodHours)) * time.Hour
	purger, err := retention.New(o)
	if err != nil {
		return UsageError("purge: " + err.Error())
	}
	report, err := purge(ctx, s, purger, *dryRun)
	report.Days, report.Slot, report.DryRun, report.Empty = o.Days, o.Slot, *dryRun, err == nil && report.Oldest == nil
	if err != nil && report.Deleted == 0 && len(report.Dropped) == 0 {
		return err // which says it all
	}
	return errors.Join(p.print(report), err)
}

type purgeReport struct {
	DryRun  bool       `json:"dryRun"`
	Days    int        `json:"days"`
	Slot    string     `json:"slot"`
	Due     int64      `json:"due"` // rows that are old enough. Only a dry run counts them.
	Deleted int64      `json:"deleted"`
	Dropped []string   `json:"dropped,omitempty"` // partitions that went instead of rows, where outbox is partitioned
	Oldest  *time.Time `json:"oldest,omitempty"`  // created_at of the oldest row that is there now. Not looked for after an error.
	Empty   bool       `json:"empty"`             // whether the table is known to have no row
}

func (r *purgeReport) text(w io.Writer) {
	oldest := ""
	switch {
	case r.Oldest != nil:
		oldest = "; the oldest row is of " + r.Oldest.Format(time.RFC3339)
	case r.Empty:
		oldest = "; the table is empty"
	}
	if r.DryRun {
		fmt.Fprintf(w, "dry run: %s older than %s would go, once slot %s has confirmed them%s\n", plural.Of(r.Due, "row"), plural.Of(r.Days, "day"), r.Slot, oldest)
		return
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintf(w, "purge: dropped %s older than %s: %s%s\n", plural.Of(len(r.Dropped), "partition"), plural.Of(r.Days, "day"), strings.Join(r.Dropped, ", "), oldest)
		return
	}
	fmt.Fprintf(w, "purge: deleted %s older than %s%s\n", plural.Of(r.Deleted, "row"), plural.Of(r.Days, "day"), oldest)
}

// refuseDMS: what DMS has confirmed need not be on the stream yet. By the hour the function retention deletes there, once somebody has
// found out and switched it on.
func refuseDMS(ctx context.Context, conn *pgx.Conn, name string) error {
	slot, err := dbgen.New(conn).SlotGet(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // the purger says it better
	}
	if err != nil {
		return fmt.Errorf("looking at slot %s: %w", name, err)
	}
	if slot.Plugin == "test_decoding" {
		return fmt.Errorf("slot %s is a DMS task's: what DMS has confirmed need not be on the stream yet, so no row is deleted by hand; "+
			"docs/operations.md#retention says what to do instead", name)
	}
	return nil
}

func purge(ctx context.Context, s *Setup, purger *retention.Purger, dryRun bool) (*purgeReport, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return &purgeReport{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := refuseDMS(ctx, conn, s.Slot); err != nil {
		return &purgeReport{}, err
	}
	if dryRun {
		plan, err := purger.Plan(ctx, conn)
		return &purgeReport{Due: plan.Due, Oldest: plan.Oldest}, err
	}
	_, errAttach := retention.AttachPartitions(ctx, conn)
	result, err := purger.Purge(ctx, conn)
	return &purgeReport{Deleted: result.Deleted, Dropped: result.Dropped, Oldest: result.OldestKept}, errors.Join(errAttach, err)
}
