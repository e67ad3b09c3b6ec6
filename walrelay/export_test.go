package walrelay

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// SetupTimeout is how long these steps may take without SetupFor.
const SetupTimeout = setupTimeout

// SetupFor sets how long the steps before the load or the stream may take.
func (r *Relay) SetupFor(d time.Duration) { r.setupFor = d }

// DrainFor sets how long the relay waits for answers when it ends.
func (r *Relay) DrainFor(d time.Duration) { r.drainFor = d }

// MeasureEvery sets how often the relay measures its slot.
func (r *Relay) MeasureEvery(d time.Duration) { r.measureEvery = d }

// ReportEvery sets how often the relay proves and reports its position, however few rows there are.
func (r *Relay) ReportEvery(d time.Duration) { r.reportEvery = d }

// ReportedRows is after how many rows it does both sooner.
const ReportedRows = reportedRows

// longTimeout is a wal_sender_timeout whose third is longer than the day that tests give to ReportEvery.
const longTimeout = 100 * time.Hour

// StreamOn streams on the given connections, as if wal_sender_timeout were longTimeout. As if it were off, a server that says nothing for
// minPatience would count as gone, although without statuses nobody asks it.
func (r *Relay) StreamOn(ctx context.Context, control, replication *pgx.Conn) error {
	if _, err := r.preflight(ctx, control); err != nil {
		return err
	}
	if err := r.startReplication(ctx, replication.PgConn()); err != nil {
		return err
	}
	return r.streamWAL(ctx, control, replication.PgConn(), longTimeout)
}

// Pending returns how many records the relay holds.
func (r *Relay) Pending() int {
	if p := r.phase.Load().pipeline; p != nil {
		return p.size()
	}
	return 0
}
