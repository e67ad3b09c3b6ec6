package walrelay_test

import (
	"context"
	"fmt"
	"testing"
	"time"

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
			r.exec(t, fmt.Sprintf("ALTER DATABASE %s SET wal_sender_timeout = 0", r.database(t))) // else a third of it is the time
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
			r.exec(t, "SELECT pg_terminate_backend($1)", r.streaming(t))
			r.fill(t, "after", 1, 1)
			records := r.await(t, rows+1)
			r.requireWhole(t, records)
			require.LessOrEqual(t, len(records)-rows-1, mayRepeat, "rows that came again")
		})
	}
}
