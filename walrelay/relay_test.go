package walrelay_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

func TestCommittedEventsArriveInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "a", 20, 1, 3) // one transaction
	var writers sync.WaitGroup
	for a := range 20 { // one transaction each, concurrently
		writers.Go(func() {
			for version := 4; version <= 8; version++ {
				if err := outbox.Append(t.Context(), r.db.Pool, event(fmt.Sprint("a", a), version)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	records := r.await(t, 160)
	require.NoError(t, stop())
	require.Equal(t, 160, len(records), "without a fault there are no duplicates")
	r.requireWhole(t, records)
	for _, record := range records {
		require.Equal(t, outbox.OperationInsert, record.Operation)
		require.False(t, record.Commit.Time.IsZero())
		require.False(t, record.Timestamp.Before(record.Commit.Time))
	}
}

func TestRowsOlderThanTheSlotAreLoaded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 30, 1, 10) // more than a page
	stop := r.start(t)
	r.await(t, 300)
	r.streaming(t)
	// It goes with the load's session, which the server ends after the relay has closed it.
	r.eventually(t, "the end of the load's temporary slot, which would hold back WAL", func() bool {
		var slots []string
		require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT array_agg(slot_name::text) FROM pg_replication_slots WHERE slot_name LIKE $1 || '%'", r.slot).Scan(&slots))
		return slices.Equal(slots, []string{r.slot})
	})
	r.append(t, "a", 30, 11, 12)
	records := r.await(t, 360)
	require.NoError(t, stop())
	require.Equal(t, 360, len(records), "no row comes by load and by insert")
	r.requireWhole(t, records)
	for _, record := range records {
		want := outbox.OperationLoad
		if record.Row.AggregateVersion > 10 {
			want = outbox.OperationInsert
		}
		require.Equal(t, want, record.Operation)
	}
}

// Writers commit all through the load. The snapshot and the slot's start must meet exactly.
func TestNothingFallsBetweenLoadAndStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 50, 1, 20)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var written atomic.Int64
	for w := range 4 {
		writers.Go(func() {
			for version := 1; ctx.Err() == nil; version++ {
				if err := outbox.Append(t.Context(), r.db.Pool, event(fmt.Sprint("during", w), version)); err != nil {
					t.Error(err)
				}
				written.Add(1)
			}
		})
	}
	r.eventually(t, "the first writes", func() bool { return written.Load() > 0 })
	stop := r.start(t)
	r.streaming(t)
	cancel()
	writers.Wait()
	var rows int
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&rows))
	records := r.await(t, rows)
	require.NoError(t, stop())
	require.Equal(t, rows, len(records))
	r.requireWhole(t, records)
}

func TestRolledBackEventsNeverArrive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	ctx := t.Context()
	tx, err := r.db.Pool.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, outbox.Append(ctx, tx, event("rolled back", 1)))
	require.NoError(t, tx.Rollback(ctx))
	require.NoError(t, pgx.BeginFunc(ctx, r.db.Pool, func(tx pgx.Tx) error {
		if err := outbox.Append(ctx, tx, event("kept", 1)); err != nil {
			return err
		}
		savepoint, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if err := outbox.Append(ctx, savepoint, event("kept", 2)); err != nil {
			return err
		}
		if err := savepoint.Rollback(ctx); err != nil {
			return err
		}
		return outbox.Append(ctx, tx, event("kept", 2))
	}))
	r.append(t, "end", 1, 1, 1)
	records := r.await(t, 3)
	require.NoError(t, stop())
	require.Equal(t, 3, len(records))
	r.requireWhole(t, records)
}

func TestACleanStopSendsNothingTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for round := range 3 {
		stop := r.start(t)
		r.streaming(t)
		r.append(t, "a", 10, 2*round+1, 2*round+2)
		r.await(t, 20*(round+1))
		require.NoError(t, stop())
	}
	records := r.arrived(t)
	require.Equal(t, 60, len(records))
	r.requireWhole(t, records)
}

// The stop comes while the relay holds a part of a transaction, and the server still has the rest of it.
func TestAStopInTheMiddleOfATransactionSendsNothingTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	refused := putFault(awslocal.EntryError)
	refused.Code = "InternalFailure"
	active := r.aws.Faults().Add(refused)
	relay := r.relay(t)
	relay.DrainFor(time.Hour) // for all of the rows
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(cancel)
	r.streaming(t)
	const rows = 12_000 // more than the relay holds
	r.fill(t, "a", rows/10, 10)
	r.eventually(t, "the relay to hold all that it may, and a strike", func() bool { return relay.Pending() >= 10_000 && active.Struck() > 0 })
	cancel()
	active.Off()
	require.NoError(t, <-done)
	require.Equal(t, rows, r.distinct(t), "the stopping relay reads on to the commit")

	r.start(t)
	r.streaming(t)
	r.append(t, "b", 1, 1, 1)
	records := r.await(t, rows+1)
	require.Equal(t, rows+1, len(records))
	r.requireWhole(t, records)
}

// A database whose other tables are busy must not keep WAL for an outbox that is quiet.
func TestOtherTablesMoveTheSlotOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	r.exec(t, "CREATE TABLE busy AS SELECT generate_series(1, 10000) AS n")
	var target string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&target))
	r.eventually(t, "the slot to pass "+target, func() bool {
		var passed bool
		err := r.db.Pool.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", r.slot, target).Scan(&passed)
		return err == nil && passed
	})
}

// A relay needs no more than the migrations' grants and the REPLICATION attribute.
func TestMeasuresItsSlotAndItsCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	refused := putFault(awslocal.EntryError)
	refused.Code, refused.Count = "ProvisionedThroughputExceededException", 1
	stop := r.start(t)
	r.streaming(t)
	fault := r.aws.Faults().Add(refused)
	r.append(t, "a", 1, 1, 1)
	r.await(t, 1)
	require.NotZero(t, fault.Struck())
	down := putFault(awslocal.CallError)
	down.Status, down.Count = 503, 1
	fault = r.aws.Faults().Add(down)
	r.append(t, "a", 1, 2, 2)
	r.await(t, 2)
	require.NotZero(t, fault.Struck())
	r.eventually(t, "the slot to be measured", func() bool { return strings.Contains(r.logged(), "state=streaming") })
	require.NoError(t, stop())
	name := `StreamName=\S+ SlotName=` + r.slot
	require.Regexp(t, `msg=slot hop=3 `+name+` slot_lag_bytes=\d+ retained_wal_bytes=[1-9]\d* state=streaming streaming=1 ready=true _aws\.Timestamp=\d{13} `, r.logged())
	require.Regexp(t, `level=WARN msg=put hop=4 `+name+` put=0 retried=1 .*last_code=Provisioned`, r.logged())
	require.Regexp(t, `level=INFO msg=put hop=4 `+name+` put=1 retried=0 `, r.logged())
	require.Regexp(t, `level=WARN msg=put hop=4 `+name+` put=0 retried=1 .*error=".*503`, r.logged())
}

func TestTheRolesOfTheMigrationsSuffice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 3, 1, 2)
	user := "user_" + r.slot
	r.exec(t, "CREATE ROLE "+user+" LOGIN REPLICATION PASSWORD 'secret' IN ROLE outbox_relay")
	t.Cleanup(func() { r.exec(t, "DROP ROLE "+user) })
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	r.db.URL = fmt.Sprintf("postgres://%s:secret@%s:%d/%s", user, config.Host, config.Port, config.Database)
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "a", 3, 3, 4)
	records := r.await(t, 12)
	require.NoError(t, stop())
	r.requireWhole(t, records)
}

func TestConfigurationIsRefusedByName(t *testing.T) {
	t.Parallel()
	good := walrelay.Config{
		Database: login(t, "postgres://localhost/x"), Stream: "s", Slot: "relay", Kinesis: struct{ walrelay.Kinesis }{}, Log: slog.New(slog.DiscardHandler),
	}
	_, err := walrelay.New(good)
	require.NoError(t, err)
	for field, change := range map[string]func(*walrelay.Config){
		"Database": func(c *walrelay.Config) { c.Database = nil },
		"Stream":   func(c *walrelay.Config) { c.Stream = "" },
		"Slot":     func(c *walrelay.Config) { c.Slot = "Relay-1" },
		"Kinesis":  func(c *walrelay.Config) { c.Kinesis = nil },
		"Log":      func(c *walrelay.Config) { c.Log = nil },
	} {
		bad := good
		change(&bad)
		_, err := walrelay.New(bad)
		require.ErrorContains(t, err, field)
	}
}

// The relay keeps the order in which a transaction wrote its rows. It cannot mend a writer that wrote version
// 2 before version 1. Nothing on the writing side can refuse that, because a call of Append sees one event,
// and outbox_api may not read the table. The version shows what happened.
func TestVersionsWrittenBackwardsArriveBackwards(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		for _, version := range []int{2, 1} {
			if err := outbox.Append(t.Context(), tx, event("a", version)); err != nil {
				return err
			}
		}
		return nil
	}))
	var versions []int64
	for _, record := range r.await(t, 2) {
		versions = append(versions, record.Row.AggregateVersion)
	}
	require.Equal(t, []int64{2, 1}, versions)
}

// Each of these needs a person. The relay ends with one clear error that says what to do, and leaves no slot.
func TestSetupErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prepare         func(*testing.T, *rig, *walrelay.Config)
		problem, remedy string
	}{
		"PublicationMissing": {
			func(t *testing.T, r *rig, _ *walrelay.Config) { r.exec(t, "DROP PUBLICATION outbox_publication") },
			"publication outbox_publication", "make migrate",
		},
		"PublicationWithoutInserts": {
			func(t *testing.T, r *rig, _ *walrelay.Config) {
				r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'delete')")
			},
			"publication outbox_publication", "make migrate",
		},
		"PublicationWithAFilter": {
			func(t *testing.T, r *rig, _ *walrelay.Config) {
				pgtest.RequireFilters(t, r.db.Pool)
				r.exec(t, "ALTER PUBLICATION outbox_publication SET TABLE outbox WHERE (aggregate_version > 5)")
			},
			"every insert", "make migrate",
		},
		"StreamMissing": {
			func(_ *testing.T, _ *rig, c *walrelay.Config) { c.Stream = "nowhere" },
			"stream nowhere", "region",
		},
		"SlotOfAnotherPlugin": {
			func(t *testing.T, r *rig, _ *walrelay.Config) {
				r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.slot)
			},
			"test_decoding", "another slot name",
		},
		"SlotOfAnotherDatabase": {
			func(t *testing.T, r *rig, _ *walrelay.Config) {
				other := pgtest.New(t)
				_, err := other.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
				require.NoError(t, err)
				t.Cleanup(func() {
					_, err := other.Pool.Exec(context.WithoutCancel(t.Context()), "SELECT pg_drop_replication_slot($1)", r.slot)
					require.NoError(t, err)
				})
			},
			"and database", "another slot name",
		},
		"PasswordRefused": {
			func(t *testing.T, r *rig, c *walrelay.Config) {
				r.exec(t, "CREATE ROLE nobody_"+r.slot+" LOGIN")
				t.Cleanup(func() { r.exec(t, "DROP ROLE nobody_"+r.slot) })
				config, err := pgx.ParseConfig(r.db.URL)
				require.NoError(t, err)
				c.Database = login(t, fmt.Sprintf("postgres://nobody_%s:wrong@%s:%d/%s", r.slot, config.Host, config.Port, config.Database))
			},
			"SQLSTATE 28P01", "password",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			config := r.config(t)
			tc.prepare(t, r, &config)
			relay, err := walrelay.New(config)
			require.NoError(t, err)
			err = relay.Run(t.Context())
			var setup *walrelay.SetupError
			require.ErrorAs(t, err, &setup)
			require.Contains(t, setup.Problem, tc.problem)
			require.Contains(t, setup.Remedy, tc.remedy)
			require.NotContains(t, err.Error(), "wrong", "the password must not be told")
			require.Empty(t, r.arrived(t))
		})
	}
}
