package walrelay

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// DrainFor sets how long the relay waits for answers when it ends.
func (r *Relay) DrainFor(d time.Duration) { r.drainFor = d }

// MeasureEvery sets how often the relay measures its slot.
func (r *Relay) MeasureEvery(d time.Duration) { r.measureEvery = d }

// ReportEvery sets how often the relay proves and reports its position, however few rows there are.
func (r *Relay) ReportEvery(d time.Duration) { r.reportEvery = d }

// ReportedRows is after how many rows it does both sooner.
const ReportedRows = reportedRows

// StreamOn streams on the given connections, without setting wal_sender_timeout.
func (r *Relay) StreamOn(ctx context.Context, control, replication *pgx.Conn) error {
	if _, err := r.preflight(ctx, control); err != nil {
		return err
	}
	if err := r.startReplication(ctx, replication.PgConn()); err != nil {
		return err
	}
	return r.streamWAL(ctx, control, replication.PgConn(), 0)
}

// Pending returns how many records the relay holds.
func (r *Relay) Pending() int {
	if p := r.phase.Load().pipeline; p != nil {
		return p.size()
	}
	return 0
}
