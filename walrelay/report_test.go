package walrelay_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/walrelay"
)

// The server hears the position after some rows. With time alone, a relay that dies under load
// repeats all that it sent since the latest second. Here the time never comes. The server ends the
// connection, which is all that it sees of a kill.
func TestAKillRepeatsFewRows(t *testing.T) {
	t.Parallel()
	const rows, perTransaction, mayRepeat = 10_000, 50, 2 * walrelay.ReportedRows
	for name, backlog := range map[string]bool{"Live": false, "Backlog": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.exec(t, fmt.Sprintf("ALTER DATABASE %s SET wal_sender_timeout = '24h'", r.database(t))) // a third of it is the time
			stop := r.start(t)
			r.streaming(t)
			require.NoError(t, stop())

			start := func() {
				relay := r.relay(t)
				relay.ReportEvery(24 * time.Hour)
				ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
				done := make(chan error, 1)
				go func() { done <- relay.Run(ctx) }()
				t.Cleanup(func() { cancel(); <-done })
			}
			if !backlog {
				start()
				r.streaming(t)
			}
			var mustBeReported string
			for written := 0; written < rows; written += perTransaction {
				if written == rows-mayRepeat {
					require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&mustBeReported))
				}
				r.fill(t, fmt.Sprintf("a%d-", written), perTransaction, 1)
			}
			if backlog {
				start()
			}
			r.eventually(t, "the report", func() (reported bool) {
				require.NoError(t, r.db.Pool.QueryRow(t.Context(),
					"SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", r.slot, mustBeReported).Scan(&reported))
				return reported
			})
			r.await(t, rows)
			killed := r.streaming(t)
			r.exec(t, "SELECT pg_terminate_backend($1)", killed)
			r.eventually(t, "another session", func() bool { return r.streaming(t) != killed }) // one that ends late could send the next row, too
			r.fill(t, "after", 1, 1)
			records := r.await(t, rows+1)
			r.requireWhole(t, records)
			require.LessOrEqual(t, len(records)-rows-1, mayRepeat, "rows that came again")
		})
	}
}

// A report can come after the status that it asked for. It then leaves a read deadline in the past.
// The relay must put the deadline off, because until the next status every read would end at once
// without a message. Here the next status never comes.
func TestALateReportDoesNotStopTheReader(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	require.NoError(t, stop())
	r.eventually(t, "the server to let go of the slot", func() bool { return !r.slotActive(t) })

	control, err := pgx.Connect(t.Context(), r.db.URL)
	require.NoError(t, err)
	defer func() { _ = control.Close(context.WithoutCancel(t.Context())) }()
	held := &lateDeadline{waits: make(chan struct{}), until: make(chan struct{})}
	release := sync.OnceFunc(func() { close(held.until) })
	replication := r.connectReplication(t, held)
	relay := r.relay(t)
	relay.ReportEvery(24 * time.Hour)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.StreamOn(ctx, control, replication) }()
	defer func() {
		release()
		cancel()
		require.NoError(t, <-done)
	}()

	r.eventually(t, "the first report", func() bool { return ended(held.waits) })
	r.append(t, "a", 1, 1, 1)
	r.await(t, 1) // the reader has come by the report, and has sent its status
	release()
	r.append(t, "a", 1, 2, 2)
	r.requireWhole(t, r.await(t, 2))
}

// lateDeadline is a connection whose first read deadline in the past is set late. waits is closed before, and until lets it go.
type lateDeadline struct {
	net.Conn
	once         sync.Once
	waits, until chan struct{}
}

func (c *lateDeadline) SetReadDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Now()) {
		c.once.Do(func() {
			close(c.waits)
			<-c.until
		})
	}
	return c.Conn.SetReadDeadline(at)
}

// connectReplication opens a replication connection through conn.
func (r *rig) connectReplication(t *testing.T, conn *lateDeadline) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	config.RuntimeParams["replication"] = "database"
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn.Conn, err = dial(ctx, network, address)
		return conn, err
	}
	replication, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = replication.Close(context.WithoutCancel(t.Context())) })
	return replication
}
