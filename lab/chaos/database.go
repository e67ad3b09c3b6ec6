package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/postgres"
)

var databaseTrials = []trial{
	{kind: "database-kill", try: func(ctx context.Context, r *round, random *rand.Rand) error {
		return r.restartPostgres(ctx, random, (*postgres.Server).Kill)
	}},
	{kind: "database-stop-immediate", try: func(ctx context.Context, r *round, random *rand.Rand) error {
		return r.restartPostgres(ctx, random, func(s *postgres.Server) error { return syscall.Kill(s.PID(), syscall.SIGQUIT) })
	}},
	{kind: "database-kill-backend", try: killBackend},
	{kind: "database-end-sessions", try: endSessions},
	{kind: "database-end-walsender", try: endWalsender},
}

// restartPostgres ends the server without a shutdown, and starts it again a little later.
func (r *round) restartPostgres(ctx context.Context, random *rand.Rand, end func(*postgres.Server) error) error {
	if err := r.CrashDatabase(ctx, end); err != nil {
		return err
	}
	if err := sleep(ctx, between(random, 0, time.Second)); err != nil {
		return err
	}
	return r.StartDatabase(context.WithoutCancel(ctx))
}

// killBackend kills one session's process. PostgreSQL then ends all sessions and recovers from the
// WAL.
func killBackend(ctx context.Context, r *round, _ *rand.Rand) error {
	return r.await(ctx, "a session of the API", func(ctx context.Context) error {
		var pid int
		err := r.pool.QueryRow(ctx, "SELECT pid FROM pg_stat_activity WHERE application_name = 'carapi' LIMIT 1").Scan(&pid)
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
}

func endSessions(ctx context.Context, r *round, _ *rand.Rand) error {
	return r.await(ctx, "sessions of the API", r.holds("SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'carapi'"))
}

func endWalsender(ctx context.Context, r *round, _ *rand.Rand) error {
	return r.await(ctx, "the relay's session", r.holds("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", r.Slot()))
}

var slotTrials = []trial{
	ofList("slot-dropped", "drop-slot", slotDropped),
	{kind: "slot-lost", try: slotLost},
	{kind: "slot-beside-prepared-transaction", try: prepared(besideNewSlot)},
}

// slotDropped lets the relay load again. Kinesis is slow at first, so that commits meet the load.
func slotDropped(ctx context.Context, r *round, _ *rand.Rand, drop *faults.Fault) error {
	if err := drop.Strike(ctx); err != nil {
		return err
	}
	atFirst := faults.KinesisSlow
	atFirst.Count = 10
	return r.during(ctx, atFirst, nil, func(*ruleInForce) error { return r.await(ctx, "a new slot", r.slotExists()) })
}

// slotLost makes the server remove WAL that the slot needs. The relay must refuse such a slot until a person drops it.
func slotLost(ctx context.Context, r *round, _ *rand.Rand) error {
	if err := r.await(ctx, "a slot", r.slotExists()); err != nil {
		return err
	}
	if err := r.Relay.TakeDown(ctx); err != nil {
		return err
	}
	defer r.release()
	const reload = "SELECT pg_reload_conf()"
	if err := r.execute(ctx, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", reload); err != nil {
		return err
	}
	err := r.await(ctx, "the slot to be lost", func(ctx context.Context) error {
		for _, statement := range []string{
			"SELECT pg_logical_emit_message(false, 'chaos', '')", "SELECT pg_switch_wal()", "CHECKPOINT",
		} {
			if _, err := r.pool.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return ask(ctx, r.pool, "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1", r.Slot())
	})
	if err := errors.Join(err, r.execute(context.WithoutCancel(ctx), "ALTER SYSTEM RESET max_slot_wal_keep_size", reload)); err != nil {
		return err
	}
	said, err := os.Stat(r.Relay.Log())
	if err != nil {
		return err
	}
	r.release()
	relay, err := r.Relay.Process(ctx)
	if err != nil {
		return err
	}
	select {
	case <-relay.Done():
	case <-ctx.Done():
		return errors.New("the relay streams from a lost slot")
	}
	if err := fileSays(r.Relay.Log(), said.Size(), "is lost: the server has removed WAL"); err != nil {
		return err
	}
	return r.await(ctx, "a new slot", func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost'", r.Slot())
		return errors.Join(err, r.slotExists()(ctx))
	})
}
