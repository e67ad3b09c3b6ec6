package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"rds-outbox-demo/migrate"
)

// The table cannot go back. From this trial on the rest of the run is one of a partitioned outbox, and a later strike of it tends the
// partitions.
var partitionTrials = []trial{{kind: "ddl-partition", try: partitioned}}

// agedPartition ends before everything but the due notes of retention.go, which retention then drops with it.
const agedPartition = "outbox_aged"

// partitioned makes outbox a partitioned table under load. The relay has to go on and to confirm what is committed afterwards.
func partitioned(ctx context.Context, r *round, _ *rand.Rand) error {
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	output := r.Relay.Log()
	said, err := os.Stat(output)
	if err != nil {
		return err
	}
	// A trial of the other lane may add a column meanwhile, or end the session. Then the table is left as it was.
	err = r.await(ctx, "outbox to be partitioned", func(ctx context.Context) error {
		_, err := migrate.Partition(ctx, r.pool.Config().ConnConfig, 24*time.Hour, 0, migrate.Options{})
		return err
	})
	if err != nil {
		return err
	}
	_, behind, err := r.writeNote(ctx, "public.outbox", "event_data", 0)
	if err != nil {
		return err
	}
	return r.await(ctx, "the relay to pass the change", func(ctx context.Context) error {
		if lines := stopLines(output, said.Size()); len(lines) > 0 {
			return fmt.Errorf("the relay ended: %s", lines[0])
		}
		return r.confirmed(behind)(ctx)
	})
}

// makeAged attaches agedPartition to a partitioned outbox that does not have it. Retention drops it with each of its runs that finds due notes. The
// first partition holds no due note, because the trials of retention delete theirs, and later ones find agedPartition.
func (r *round) makeAged(ctx context.Context) error {
	return r.alter(ctx, fmt.Sprintf(`DO $$
		DECLARE
			first regclass;
			bound text;
			aged timestamptz := now() - interval '%d days 12 hours';
		BEGIN
			IF (SELECT relkind <> 'p' FROM pg_class WHERE oid = 'public.outbox'::regclass) OR to_regclass('public.%[2]s') IS NOT NULL THEN
				RETURN;
			END IF;
			SELECT inhrelid, pg_get_expr(relpartbound, inhrelid) INTO first, bound
			FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
			WHERE inhparent = 'public.outbox'::regclass AND relname LIKE 'outbox\_until%%';
			IF bound LIKE '%%MINVALUE%%' THEN
				EXECUTE format('ALTER TABLE public.outbox DETACH PARTITION %%s', first);
				EXECUTE format('ALTER TABLE public.outbox ATTACH PARTITION %%s %%s', first, replace(bound, 'MINVALUE', quote_literal(aged)));
			ELSE
				aged := substring(bound FROM $re$FROM \('([^']+)'\)$re$);
			END IF;
			EXECUTE format('CREATE TABLE public.%[2]s (LIKE %%s INCLUDING ALL)', first);
			EXECUTE format('ALTER TABLE public.outbox ATTACH PARTITION public.%[2]s FOR VALUES FROM (MINVALUE) TO (%%L)', aged);
		END $$`, retentionDays, agedPartition))
}
