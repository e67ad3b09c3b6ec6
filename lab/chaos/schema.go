package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/judge"
)

// harm is a change of the database that takes events out of the relay's sight. The relay has to end and name the remedy before it confirms
// anything beyond the change. The fault then applies the remedy. Where the relay goes on instead, the judge sees what was lost.
type harm struct {
	kind     string
	versions int // the first major version of PostgreSQL that knows it
	change   []string
	mend     []string
	table    string // where the events' table, or what writers take for it, is meanwhile
	payload  string // what its column event_data is called
	// load is set where the change does harm to a load only, so that the slot is dropped first.
	load   bool
	remedy string // what the relay has to say
}

const dropSlotRemedy = "pg_drop_replication_slot"

var harms = []harm{
	{
		kind: "ddl-publication-without-table", table: "public.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"ALTER PUBLICATION outbox_publication DROP TABLE public.outbox"},
		mend:   []string{"ALTER PUBLICATION outbox_publication ADD TABLE public.outbox"},
	},
	{
		kind: "ddl-publication-without-inserts", table: "public.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"ALTER PUBLICATION outbox_publication SET (publish = 'update')"},
		mend:   []string{"ALTER PUBLICATION outbox_publication SET (publish = 'insert')"},
	},
	{
		kind: "ddl-publication-row-filter", versions: 15, table: "public.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"ALTER PUBLICATION outbox_publication SET TABLE public.outbox WHERE (aggregate_type = 'Nothing')"},
		mend:   []string{"ALTER PUBLICATION outbox_publication SET TABLE public.outbox"},
	},
	{
		kind: "ddl-publication-column-list", versions: 15, table: "public.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"ALTER PUBLICATION outbox_publication SET TABLE public.outbox (id, aggregate_type, aggregate_id, aggregate_version)"},
		mend:   []string{"ALTER PUBLICATION outbox_publication SET TABLE public.outbox"},
	},
	{
		kind: "ddl-table-renamed", table: "public.events", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"ALTER TABLE public.outbox RENAME TO events"},
		mend:   []string{"ALTER TABLE public.events RENAME TO outbox"},
	},
	{
		kind: "ddl-table-moved", table: "app.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{"CREATE SCHEMA app", "ALTER TABLE public.outbox SET SCHEMA app"},
		mend:   []string{"ALTER TABLE app.outbox SET SCHEMA public", "DROP SCHEMA app"},
	},
	{
		// The publication goes with the table, and not with its name.
		kind: "ddl-table-swapped", table: "public.outbox", payload: "event_data", remedy: dropSlotRemedy,
		change: []string{
			"ALTER TABLE public.outbox RENAME TO outbox_before", "CREATE TABLE public.outbox (LIKE public.outbox_before INCLUDING ALL)",
			"GRANT SELECT ON public.outbox TO outbox_relay",
		},
		mend: []string{
			"LOCK TABLE public.outbox", "INSERT INTO public.outbox_before SELECT * FROM public.outbox", "DROP TABLE public.outbox",
			"ALTER TABLE public.outbox_before RENAME TO outbox",
		},
	},
	{
		kind: "ddl-column-renamed", table: "public.outbox", payload: "renamed", remedy: dropSlotRemedy,
		change: []string{"ALTER TABLE public.outbox RENAME COLUMN event_data TO renamed"},
		mend:   []string{"ALTER TABLE public.outbox RENAME COLUMN renamed TO event_data"},
	},
	{
		kind: "role-row-level-security", table: "public.outbox", payload: "event_data", remedy: "row-level security", load: true,
		change: []string{"ALTER TABLE public.outbox ENABLE ROW LEVEL SECURITY"},
		mend:   []string{"ALTER TABLE public.outbox DISABLE ROW LEVEL SECURITY"},
	},
}

var harmFaults = faultsOf(harms)

func faultsOf(all []harm) (faults []fault) {
	for _, h := range all {
		faults = append(faults, fault{kind: h.kind, strike: h.strike, versions: h.versions})
	}
	return faults
}

func (h harm) strike(ctx context.Context, r *round, _ *rand.Rand) (err error) {
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	output := r.relayConfig.Output.Name()
	said, err := os.Stat(output)
	if err != nil {
		return err
	}
	if err := r.alter(ctx, h.change...); err != nil {
		return err
	}
	mended := false
	mend := func() error {
		mended = true
		return r.alter(context.WithoutCancel(ctx), h.mend...)
	}
	defer func() {
		if !mended {
			err = errors.Join(err, mend())
		}
	}()
	behind, err := r.writeUnseen(ctx, h)
	if err != nil {
		return err
	}
	if h.load {
		if err := r.dropSlot(ctx, nil); err != nil {
			return err
		}
	}
	refused := false
	err = r.await(ctx, "the relay to refuse the change, or to pass it", func(ctx context.Context) error {
		line, ended := stopLine(output, said.Size())
		if refused = ended; ended {
			if !strings.Contains(line, h.remedy) {
				return fmt.Errorf("the relay ended without naming %q: %s", h.remedy, line)
			}
			return nil
		}
		return r.confirmed(behind)(ctx)
	})
	if err != nil {
		return err
	}
	if refused && !h.load {
		// Before the table is mended, or a relay that is started again meanwhile would read past what it cannot see.
		if err := r.await(ctx, "the slot to be dropped", r.slotGone); err != nil {
			return err
		}
	}
	return errors.Join(mend(), r.await(ctx, "a slot", r.slotExists))
}

// writeUnseen commits an event that the change hides from the relay, and returns a position after its commit.
func (r *round) writeUnseen(ctx context.Context, h harm) (behind string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	written := judge.Written{EventID: id, Outcome: judge.Committed, Span: judge.Span{Began: r.history.moment()}}
	err = r.await(ctx, "an event that the relay cannot see", func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, `INSERT INTO `+h.table+` (id, aggregate_type, aggregate_id, aggregate_version, event_type, `+h.payload+`)
			VALUES ($1, 'Note', $2, 1, 'NoteTaken', '{}') ON CONFLICT DO NOTHING`, id, id.String())
		if err != nil {
			return err
		}
		return r.pool.QueryRow(ctx, "SELECT pg_logical_emit_message(false, 'chaos', '')::text").Scan(&behind)
	})
	if err != nil {
		return "", err
	}
	written.Span.Ended = r.history.moment()
	r.history.add(func() { r.history.written = append(r.history.written, written) })
	return behind, nil
}

// slotGone drops the slot. The server refuses while a relay streams from it.
func (r *round) slotGone(ctx context.Context) error {
	_, err := r.pool.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slotName)
	if err != nil && errors.Is(r.slotExists(ctx), errNoSlot) {
		return nil
	}
	return err
}

// stopLine is the line with which the relay ended, after the first bytes of its output.
func stopLine(path string, behind int64) (line string, found bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(content[behind:])) {
		if strings.Contains(line, `"msg":"walrelay stopped"`) {
			return strings.TrimSpace(line), true
		}
	}
	return "", false
}

// What does no harm: the relay goes on, whatever becomes of columns that it does not read, of files and of indexes.
var harmlessFaults = []fault{
	{kind: "ddl-add-column", strike: changedWithoutHarm("ALTER TABLE public.outbox ADD COLUMN IF NOT EXISTS chaos integer DEFAULT 7",
		"ALTER TABLE public.outbox DROP COLUMN IF EXISTS chaos")},
	{kind: "ddl-vacuum-full", strike: changedWithoutHarm("VACUUM FULL public.outbox", "REINDEX TABLE public.outbox")},
	{kind: "ddl-index", strike: changedWithoutHarm("CREATE INDEX IF NOT EXISTS outbox_chaos ON public.outbox (event_type)",
		"DROP INDEX IF EXISTS public.outbox_chaos")},
}

// changedWithoutHarm changes the table, lets a moment of load pass over it, and changes it back.
func changedWithoutHarm(change, back string) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, random *rand.Rand) error {
		execute := func(ctx context.Context, statement string) error {
			return r.await(ctx, statement, func(ctx context.Context) error {
				_, err := r.pool.Exec(ctx, statement)
				return err
			})
		}
		err := execute(ctx, change)
		if err == nil {
			err = sleep(ctx, between(random, 100*time.Millisecond, 500*time.Millisecond))
		}
		return errors.Join(err, execute(context.WithoutCancel(ctx), back))
	}
}
