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
// anything beyond the change. The trial then applies the remedy. Where the relay goes on instead, the judge sees what was lost.
type harm struct {
	kind     string
	versions int // the first major version of PostgreSQL that knows it
	change   []string
	mend     []string
	table    string // the table that writers use while the change is there
	payload  string // what its column event_data is called
	// load is set where the change does harm only to a load. The slot is then dropped first.
	load bool
	// stands is set where the relay meets the change only in the WAL, after what was committed
	// before it.
	stands bool
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
		// The publication follows the table, and not its name.
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
		kind: "ddl-column-renamed", table: "public.outbox", payload: "renamed", remedy: dropSlotRemedy, stands: true,
		change: []string{"ALTER TABLE public.outbox RENAME COLUMN event_data TO renamed"},
		mend:   []string{"ALTER TABLE public.outbox RENAME COLUMN renamed TO event_data"},
	},
	{
		kind: "role-row-level-security", table: "public.outbox", payload: "event_data", remedy: "row-level security", load: true,
		change: []string{"ALTER TABLE public.outbox ENABLE ROW LEVEL SECURITY"},
		mend:   []string{"ALTER TABLE public.outbox DISABLE ROW LEVEL SECURITY"},
	},
}

var harmTrials = trialsOf(harms)

func trialsOf(all []harm) (trials []trial) {
	for _, h := range all {
		trials = append(trials, trial{kind: h.kind, try: h.try, versions: h.versions, alone: h.stands})
	}
	return trials
}

func (h harm) try(ctx context.Context, r *round, random *rand.Rand) (err error) {
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	output := r.Relay.Log()
	said, err := os.Stat(output)
	if err != nil {
		return err
	}
	if h.stands { // so that one session reads the change after what was committed before it
		if err := r.Relay.TakeDown(ctx); err != nil {
			return err
		}
		defer r.release()
	}
	seen, before, err := r.writeNote(ctx, "public.outbox", "event_data", 0)
	if err != nil {
		return err
	}
	// A relay confirms only ends of commits. Without another commit none might lie after the
	// position.
	if _, _, err := r.writeNote(ctx, "public.outbox", "event_data", 0); err != nil {
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
	_, behind, err := r.writeNote(ctx, h.table, h.payload, 0)
	if err != nil {
		return err
	}
	r.release()
	if h.load {
		if err := r.DropSlot(ctx); err != nil {
			return err
		}
	}
	refused := false
	err = r.await(ctx, "the relay to refuse the change, or to pass it", func(ctx context.Context) error {
		lines := stopLines(output, said.Size())
		if refused = len(lines) > 0; !refused {
			return r.confirmed(behind)(ctx)
		}
		if !strings.Contains(lines[0], h.remedy) {
			return fmt.Errorf("the relay ended without naming %q: %s", h.remedy, lines[0])
		}
		return nil
	})
	if err == nil && refused && h.stands {
		err = r.stoodAt(ctx, output, said.Size(), seen, before)
	}
	if err != nil {
		return err
	}
	// The order is random. A relay that is started again between the two steps must not pass what
	// it could not see.
	first := random.IntN(2) == 0
	if first {
		err = mend()
	}
	if err == nil && refused && !h.load {
		err = r.DropIdleSlot(ctx)
	}
	if err == nil && !first {
		err = mend()
	}
	return errors.Join(err, r.await(ctx, "a slot", r.slotExists()))
}

// maxSessions is how many sessions may end on the same change before stoodAt gives up waiting for a
// confirmed position.
const maxSessions = 10

// stoodAt notes whether the relay has confirmed an event that was committed before the change on which it ends.
func (r *round) stoodAt(ctx context.Context, output string, since int64, event uuid.UUID, position string) error {
	refusal := judge.Refusal{EventID: event}
	err := r.await(ctx, "what was committed before the change to be confirmed", func(ctx context.Context) error {
		refusal.Sessions = len(stopLines(output, since))
		err := r.confirmed(position)(ctx)
		if refusal.Confirmed = err == nil; refusal.Sessions >= maxSessions {
			return nil
		}
		return err
	})
	r.history.add(func() { r.history.known.Refusals = append(r.history.known.Refusals, refusal) })
	return err
}

// stopLines are the lines with which the relay ended, after the first bytes of its output.
func stopLines(path string, behind int64) (lines []string) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(content[behind:])) {
		if strings.Contains(line, `"msg":"walrelay stopped"`) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// These changes do no harm. The relay goes on whatever happens to columns that it does not read, to
// files and to indexes.
var harmlessTrials = []trial{
	{kind: "ddl-add-column", try: changedWithoutHarm("ALTER TABLE public.outbox ADD COLUMN IF NOT EXISTS chaos integer DEFAULT 7",
		"ALTER TABLE public.outbox DROP COLUMN IF EXISTS chaos")},
	{kind: "ddl-vacuum-full", try: changedWithoutHarm("VACUUM FULL public.outbox", "REINDEX TABLE public.outbox")},
	{kind: "ddl-index", try: changedWithoutHarm("CREATE INDEX IF NOT EXISTS outbox_chaos ON public.outbox (event_type)",
		"DROP INDEX IF EXISTS public.outbox_chaos")},
}

// changedWithoutHarm changes the table, lets a moment of load pass over it, and changes it back.
func changedWithoutHarm(change, back string) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, random *rand.Rand) error {
		err := r.execute(ctx, change)
		if err == nil {
			err = sleep(ctx, between(random, 100*time.Millisecond, 500*time.Millisecond))
		}
		return errors.Join(err, r.execute(context.WithoutCancel(ctx), back))
	}
}
