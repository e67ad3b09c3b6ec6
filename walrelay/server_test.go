package walrelay_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/postgres/postgrestest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// newServerRig is a rig on a PostgreSQL server of its own, for what concerns the whole server. crash ends the server with a signal to
// the postmaster, SIGKILL or SIGQUIT (immediate shutdown), and starts it again at the same address.
func newServerRig(t *testing.T, settings map[string]string) (_ *rig, crash func(syscall.Signal)) {
	t.Helper()
	server, config := postgrestest.Start(t, settings)
	r := newRigOn(t, postgrestest.Migrate(t, server), "relay")
	config.Port = int(r.db.Pool.Config().ConnConfig.Port)
	t.Cleanup(func() { _ = server.Kill() }) // the one that was started last
	crash = func(how syscall.Signal) {
		require.NoError(t, syscall.Kill(server.PID(), how))
		<-server.Done()
		var err error
		server, err = postgres.Start(t.Context(), config)
		require.NoError(t, err)
	}
	return r, crash
}

func TestWALLevelNotLogical(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, map[string]string{"wal_level": "replica"})
	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	require.Equal(t, "wal_level is replica", setup.Problem)
	require.Contains(t, setup.Remedy, "rds.logical_replication")
}

// A standby of PostgreSQL 15 refuses logical decoding for ever. One of 16 or later would stream.
func TestStandbyServer(t *testing.T) {
	t.Parallel()
	r, crash := newServerRig(t, nil)
	var dir string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o644))
	crash(syscall.SIGINT)
	r.eventually(t, "the standby", func() (standby bool) { // the pool's old connections are gone
		err := r.db.Pool.QueryRow(t.Context(), "SELECT pg_is_in_recovery()").Scan(&standby)
		return err == nil && standby
	})

	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	require.EqualError(t, relay.Run(t.Context()), "the server is a standby: connect to its primary")
}

// A server that will not make the permanent slot is asked before the rows are sent, not after.
func TestNoSlotLeft(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, map[string]string{"max_replication_slots": "1"})
	r.append(t, "a", 10, 1, 2)
	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	require.Contains(t, setup.Remedy, "max_replication_slots")
	require.Empty(t, r.arrived(t))
}

// A slot that fell behind max_slot_wal_keep_size can never be streamed from again. The relay says so, and which
// statement to run. After that the retained rows come by load. There are duplicates, and nothing is missing.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"})
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "a", 10, 1, 2)
	r.await(t, 20)
	require.NoError(t, stop())
	r.append(t, "a", 10, 3, 3) // these are in the WAL that goes
	r.eventually(t, "the slot to be lost", func() bool {
		r.exec(t, "SELECT pg_switch_wal(), pg_logical_emit_message(false, 'fill', repeat('x', 1000000))")
		r.exec(t, "CHECKPOINT")
		var status string
		err := r.db.Pool.QueryRow(t.Context(), "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'relay'").Scan(&status)
		require.NoError(t, err)
		return status == "lost"
	})

	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	require.Contains(t, setup.Problem, "lost")
	const remedy = "SELECT pg_drop_replication_slot('relay')"
	require.Contains(t, setup.Remedy, remedy)

	r.exec(t, remedy)
	r.start(t)
	r.requireWhole(t, r.await(t, 30))
}

// While clients write, the server crashes twice and comes back. Every change that was answered is committed, and
// others may be. The relay connects again by itself, and all committed events arrive in order.
func TestServerCrashesUnderLoad(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]syscall.Signal{"Killed": syscall.SIGKILL, "StoppedImmediately": syscall.SIGQUIT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, crash := newServerRig(t, nil)
			r.start(t)
			r.streaming(t)
			ctx, cancel := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			var committed, refused atomic.Int64
			for w := range 4 {
				writers.Go(func() {
					for version := 1; ctx.Err() == nil; {
						// Not with ctx. The server may commit a cancelled statement after the rows are counted below.
						err := outbox.Append(t.Context(), r.db.Pool, event(fmt.Sprint("a", w), version))
						if err == nil {
							version++
							committed.Add(1)
							continue
						}
						refused.Add(1)
						// Without an answer the change may be committed, so read which version is next.
						for ctx.Err() == nil {
							err := r.db.Pool.QueryRow(ctx, "SELECT coalesce(max(aggregate_version), 0) + 1 FROM outbox WHERE aggregate_id = $1", fmt.Sprint("a", w)).Scan(&version)
							if err == nil {
								break
							}
						}
					}
				})
			}
			for range 2 {
				before := committed.Load()
				r.eventually(t, "load", func() bool { return committed.Load() > before+100 })
				crash(how)
			}
			before := committed.Load()
			r.eventually(t, "load after the crashes", func() bool { return committed.Load() > before+100 })
			cancel()
			writers.Wait()
			require.NotZero(t, refused.Load(), "no client noticed a crash")
			var rows int
			require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&rows))
			require.GreaterOrEqual(t, rows, int(committed.Load()))
			r.requireWhole(t, r.await(t, rows))
			require.Contains(t, r.logged(), "connecting again")
		})
	}
}

// An address leads to another server for the first connection of a session only, which is the one that looks at the publication. The
// other server has the same table, publication and slot, as an old primary has.
func TestTwoConnectionsToTwoServers(t *testing.T) {
	t.Parallel()
	for name, slotExists := range map[string]bool{"Stream": true, "Load": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := newServerRig(t, nil)
			other, _ := newServerRig(t, nil)
			for _, server := range []*rig{r, other} {
				if slotExists {
					server.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
				}
			}
			r.append(t, "a", 10, 1, 3)
			config, err := pgx.ParseConfig(r.db.URL)
			require.NoError(t, err)
			address := other.db.Pool.Config().ConnConfig
			var dials atomic.Int32
			config.DialFunc = func(ctx context.Context, network, to string) (net.Conn, error) {
				if dials.Add(1) == 1 {
					to = net.JoinHostPort(address.Host, strconv.Itoa(int(address.Port)))
				}
				return (&net.Dialer{}).DialContext(ctx, network, to)
			}
			relayConfig := r.config(t)
			relayConfig.Database = rdsdb.NewLogin(config, "walrelay")
			relay := relayOf(t, relayConfig)
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			ended := make(chan error, 1)
			go func() { ended <- relay.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				require.NoError(t, <-ended)
			})
			two := regexp.MustCompile(`msg="session ended, connecting again" .*the session's two connections lead to two servers: slot relay`)
			r.eventually(t, "the end of the session", func() bool { return two.MatchString(r.logged()) })
			r.requireWhole(t, r.await(t, 30))
		})
	}
}
