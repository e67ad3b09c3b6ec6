package walrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pglogrepl"

	"rds-outbox-demo/dbgen"
)

// room is how much WAL the server keeps for the temporary slot (max_slot_wal_keep_size), and how
// much of it the load uses up. When all of it is used up, the server ends the session, and
// everything was sent for nothing. So a load that will not fit is given up before that.
type room struct {
	size           int64               // bytes; -1 without a limit
	before, latest dbgen.SlotHealthRow // at the first look and at the latest
}

// looked records the result of a look at the slot.
func (m *room) looked(slot dbgen.SlotHealthRow) {
	if m.before == (dbgen.SlotHealthRow{}) {
		m.before = slot
	}
	m.latest, m.size = slot, -1
	if slot.SafeWalSize != -1 {
		m.size = slot.Retained + slot.SafeWalSize
	}
}

// needed returns how many bytes the slot will hold back when all rows are accepted, if WAL and rows
// grow as they did until now.
func (m room) needed(accepted, total int64) int64 {
	grown := float64(m.latest.Retained - m.before.Retained)
	return m.before.Retained + int64(grown*float64(total)/float64(max(accepted, 1)))
}

// fits reports whether the load may go on. It may until half of the room is used, because a burst
// of WAL at the beginning proves little.
func (m room) fits(accepted, total int64) bool {
	grown := m.latest.Retained - m.before.Retained
	return m.size < 0 || grown < (m.size-m.before.Retained)/2 || m.needed(accepted, total) <= m.size
}

// accepted returns how many rows are on the stream.
func (l *loader) accepted() int64 { return l.read - int64(l.pipeline.size()) }

// look renews the lease, and looks whether the load fits into the WAL that the server keeps for it.
func (l *loader) look(ctx context.Context) error {
	l.nextLook = time.Now().Add(renewInterval)
	lookCtx, cancel := context.WithTimeout(ctx, l.lease)
	defer cancel()
	slot, err := dbgen.New(l.session).SlotHealth(lookCtx, l.slot)
	if err != nil {
		return fmt.Errorf("looking at slot %s: %w", l.slot, err)
	}
	l.looked(slot)
	if !l.fits(l.accepted(), l.total) {
		return l.outlasted()
	}
	if l.lines.due() {
		seconds := max(l.lines.lasted(), 1)
		l.relay.logMetrics(ctx, slog.LevelInfo, "loading", append(slotAttributes(slot),
			slog.Int64("rows", l.accepted()),
			slog.Int64("of_rows", l.total),
			slog.Int64("rows_per_second", l.accepted()/seconds),
			slog.Int64("wal_bytes_per_second", (slot.Retained-l.before.Retained)/seconds),
			slog.Int64("safe_wal_bytes", slot.SafeWalSize)), slotMetrics...)
	}
	return nil
}

// explain returns why a load has failed. A server that takes the slot away ends the session with
// the words of an administrator's command, so explain looks at the WAL.
func (l *loader) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil || !l.session.IsClosed() || l.size < 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	text, positionErr := dbgen.New(l.control).WALInsertPosition(ctx)
	end, endErr := pglogrepl.ParseLSN(text)
	begin, beginErr := pglogrepl.ParseLSN(l.latest.RestartLSN)
	if positionErr != nil || endErr != nil || beginErr != nil {
		return err // the server is gone, or its connections
	}
	retained := int64(end - begin) //nolint:gosec // of one WAL
	if retained < l.size {
		return err
	}
	l.latest.Retained = retained
	return l.outlasted()
}

// errOutlasts means that the server will not keep the WAL for as long as the load takes. The relay
// does not end then, because a supervisor would start it again at once, and each start would send up
// to half of the rows again.
var errOutlasts = errors.New("the initial load outlasts the WAL that the server keeps for it")

// outlasted returns errOutlasts with the numbers and the remedy.
func (l *loader) outlasted() error {
	const mb = 1 << 20
	accepted := l.accepted()
	return fmt.Errorf("%w: %d of %d rows are on the stream, and of %d MB of WAL (max_slot_wal_keep_size) %d MB are used up: "+
		"set max_slot_wal_keep_size to %d MB or more if the disk has room for it, or write less, and start the relay again; it then loads again, without that within an hour (duplicates, no loss)",
		errOutlasts, accepted, l.total, l.size/mb, l.latest.Retained/mb, 3*l.needed(accepted, l.total)/2/mb+1)
}
