package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/postgres"
)

// In each round of a run with a standby this many trials run in each of the two lanes.
const besidePromotions, promotionsPerRound = 3, 4

// promoteTrials let a standby take the primary's place. They need a run with a standby (Config.Promote). A new standby costs seconds, so
// other runs have none.
var promoteTrials = []trial{
	{kind: "promote-killed", versions: 17, try: promoted((*postgres.Server).Kill, nil)},
	{kind: "promote-stopped", versions: 17, try: promoted(func(s *postgres.Server) error { return syscall.Kill(s.PID(), syscall.SIGINT) }, nil)},
	{kind: "promote-split", versions: 17, try: promoted(nil, livesOn)},
	{kind: "promote-zombie", versions: 17, try: promoted((*postgres.Server).Kill, comesBack)},
}

func isPromotion(t trial) bool { return strings.HasPrefix(t.kind, "promote-") }

// besideTrials are those of the service lane that run beside promotions.
func besideTrials() (some []trial) {
	for _, t := range serviceLane {
		if strings.HasPrefix(t.kind, "kinesis-") || strings.HasPrefix(t.kind, "events-") {
			some = append(some, t)
		}
	}
	return some
}

// promoted promotes the standby when it has the relay's slot, lets old do its worst, and makes the next standby. end ends the old primary
// before the promotion, and nil lets it live on.
func promoted(end func(*postgres.Server) error, old func(context.Context, *round, *rand.Rand, local.Promotion) error) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, random *rand.Rand) error {
		if err := r.await(ctx, "the standby to have the slot", r.StandbyReady); err != nil {
			return err
		}
		if err := sleep(ctx, between(random, 0, time.Second)); err != nil {
			return err
		}
		done, err := r.Promote(ctx, end)
		if err != nil {
			return err
		}
		r.history.add(func() {
			r.history.known.Promotions = append(r.history.known.Promotions, judge.Promotion{SlotKept: done.SlotKept})
		})
		if old != nil {
			err = old(ctx, r, random, done)
		}
		return errors.Join(err, r.Discard(context.WithoutCancel(ctx), done), r.AddStandby(context.WithoutCancel(ctx)))
	}
}

// livesOn leaves the old primary to the sessions that it has for a while, the relay's among them. Their commits wait for a standby that
// has left, and are never answered.
func livesOn(ctx context.Context, r *round, random *rand.Rand, old local.Promotion) error {
	return errors.Join(r.writeGone(ctx, old.Old.URL()), sleep(ctx, between(random, 500*time.Millisecond, 2*time.Second)))
}

// comesBack starts the old primary again, with a relay of its own. The relay has to stop where the standby's knowledge ended.
func comesBack(ctx context.Context, r *round, _ *rand.Rand, old local.Promotion) (err error) {
	zombie, err := postgres.Start(ctx, old.OldData)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, zombie.Kill()) }()
	relay, err := r.RelayOf(zombie)
	if err != nil {
		return err
	}
	if err := relay.Start(); err != nil {
		return err
	}
	defer relay.Stop(context.WithoutCancel(ctx))
	if err := r.writeGone(ctx, zombie.URL()); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, zombie.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return r.await(ctx, "the old primary to hold its relay back", func(ctx context.Context) error {
		return ask(ctx, conn, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'WaitForStandbyConfirmation') "+
			"OR NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND failover)", r.Slot())
	})
}

// writeGone commits an event on an old primary. Nobody is told, because no standby has it. So the bus must never have it.
func (r *round) writeGone(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("writing on the old primary: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, `WITH local AS (SELECT set_config('synchronous_commit', 'local', false))
		INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		SELECT $1, 'Gone', $1::uuid::text, 1, 'Gone', '{}' FROM local`, uuid.Must(uuid.NewV7()))
	if err != nil {
		return fmt.Errorf("writing on the old primary: %w", err)
	}
	return nil
}
