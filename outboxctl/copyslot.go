package outboxctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// runCopySlot makes walrelay's slot at the position of another relay's, so that walrelay streams exactly what follows. Without it a
// new slot begins with a load, which sends every row of outbox again.
func runCopySlot(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error {
	from := flags.String("from", "", "the `slot` to copy, such as that of a DMS task that was stopped; dms finds that one by its plugin")
	dryRun := flags.Bool("dry-run", false, "check both slots, but copy nothing")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if *from == "" || len(rest) > 0 {
		return UsageError("copy-slot: name the slot with --from, and nothing else")
	}
	s, err := p.setup(ctx)
	if err != nil {
		return err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	report, err := copySlot(ctx, conn, *from, s.Slot, *dryRun)
	if err != nil {
		return err
	}
	return p.print(report)
}

func copySlot(ctx context.Context, conn *pgx.Conn, from, to string, dryRun bool) (*copySlotReport, error) {
	queries := dbgen.New(conn)
	// A relay that loads would make the slot, too.
	locked, err := queries.LoadLock(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("locking the load: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("a relay is loading for slot %s: stop it first", to)
	}
	defer func() {
		// Closing conn is not enough, because the next command may ask for the lock before the server has noticed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		_ = queries.LoadUnlock(ctx, to) // else the end of the session does it
	}()
	_, err = queries.SlotGet(ctx, to)
	if err == nil {
		return nil, fmt.Errorf("slot %s exists: walrelay streams from where it stands", to)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("looking at slot %s: %w", to, err)
	}
	if from == dms {
		if from, err = slotOfDMS(ctx, queries); err != nil {
			return nil, err
		}
	}
	source, err := queries.SlotHealth(ctx, from)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("slot %s does not exist: SELECT slot_name, plugin FROM pg_replication_slots shows those that do", from)
	case err != nil:
		return nil, fmt.Errorf("looking at slot %s: %w", from, err)
	case source.Plugin == "" || source.Database != conn.Config().Database:
		return nil, fmt.Errorf("slot %s is not a logical slot of database %s (plugin %q, database %q)", from, conn.Config().Database, source.Plugin, source.Database)
	case source.WalStatus == "lost":
		return nil, fmt.Errorf("slot %s is lost: the server has removed WAL that it needs. Start walrelay without a slot, and it loads every retained row", from)
	case source.Active: // what it confirms after the copy would be sent twice
		return nil, fmt.Errorf("slot %s is active: stop its relay first", from)
	}
	if err := publishedSince(ctx, conn, from); err != nil {
		return nil, err
	}
	report := &copySlotReport{DryRun: dryRun, From: from, Slot: to, ConfirmedLSN: source.ConfirmedLSN}
	if dryRun {
		return report, nil
	}
	if err := queries.SlotCopy(ctx, dbgen.SlotCopyParams{Source: from, Slot: to}); err != nil {
		return nil, fmt.Errorf("copying slot %s to %s: %w", from, to, err)
	}
	made, err := queries.SlotHealth(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("looking at slot %s: %w", to, err)
	}
	report.ConfirmedLSN = made.ConfirmedLSN
	return report, nil
}

// publishedSince returns an error unless every insert that slot from has not confirmed was certainly published. Another relay may not need
// the publication, so nobody notices what it leaves out. walrelay has no earlier look to compare with, and would skip those inserts.
func publishedSince(ctx context.Context, conn *pgx.Conn, from string) error {
	look, err := outbox.LookAtPublication(ctx, conn)
	switch {
	case err != nil:
		return err
	case look.Problem != "":
		return fmt.Errorf("%s: %s. What was inserted until then reaches walrelay only by a load", look.Problem, look.Remedy)
	case look.Changing:
		return fmt.Errorf("an open transaction changes table outbox or %s: end it first", outbox.Publication)
	}
	unchanged, err := dbgen.New(conn).PublicationSinceSlot(ctx, dbgen.PublicationSinceSlotParams{Publication: outbox.Publication, Slot: from})
	switch {
	case err != nil:
		return fmt.Errorf("comparing publication %s with slot %s: %w", outbox.Publication, from, err)
	case !unchanged:
		return fmt.Errorf("%s may have changed after the position of slot %s, and walrelay would skip what was not published before the change. "+
			"Start the other relay until its slot has passed the change, or start walrelay without a slot, and it loads every retained row", outbox.Publication, from)
	}
	return nil
}

// dms in place of a slot's name stands for the slot of DMS, which gives it a name that nobody chose.
const dms = "dms"

// slotOfDMS returns the name of the database's only slot with the plugin that DMS uses.
func slotOfDMS(ctx context.Context, queries *dbgen.Queries) (string, error) {
	names, err := queries.SlotsOfPlugin(ctx, "test_decoding")
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for the slot of DMS: %w", err)
	case len(names) == 0:
		return "", errors.New("no slot of this database has the plugin of DMS, test_decoding: its task was never started, or its slot is gone")
	case len(names) > 1:
		return "", fmt.Errorf("several slots have the plugin of DMS, test_decoding: name one of %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

type copySlotReport struct {
	DryRun       bool   `json:"dryRun"`
	From         string `json:"from"`
	Slot         string `json:"slot"`
	ConfirmedLSN string `json:"confirmedLsn"` // the new slot streams what committed after it
}

func (r *copySlotReport) text(w io.Writer) {
	if r.DryRun {
		fmt.Fprintf(w, "dry run: slot %s would be copied to %s, confirmed to %s\n", r.From, r.Slot, r.ConfirmedLSN)
		return
	}
	fmt.Fprintf(w, "copy-slot: made slot %s from %s, confirmed to %s: walrelay streams what committed after that\n", r.Slot, r.From, r.ConfirmedLSN)
}
