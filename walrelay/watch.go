package walrelay

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// markPrefix is the prefix of the message that the relay writes into the WAL when inserts may be
// missing from it. Its content is the slot's name. Every later reader of the slot gets the message,
// until the slot is dropped.
const markPrefix = "walrelay"

// watcher proves that each insert into outbox up to a confirmed position was published. An insert
// that is not published leaves no gap in the stream, and keepalives confirm past it. So the watcher
// looks again and again. A position counts as proven only when it was noted before a look that
// found nothing wrong.
//
// The obvious check is one look at the start. It holds for that moment, and a relay runs for weeks.
type watcher struct {
	relay    *Relay
	conn     *pgx.Conn // used by run's goroutine, and after done is closed by the caller of last
	pipeline *pipeline
	patience time.Duration // with a server that does not answer a look
	report   func()        // tells the server the position

	told time.Time // when the log last said that a change is open

	position atomic.Uint64 // proven
	stop     chan struct{} // closed when the watcher shall not look again
	done     chan struct{} // closed when run has returned
	mu       sync.Mutex
	err      error
}

func (r *Relay) newWatcher(conn *pgx.Conn, w *wal) *watcher {
	return &watcher{relay: r, conn: conn, pipeline: w.pipeline, patience: w.patience, report: w.reportNow, stop: make(chan struct{}), done: make(chan struct{})}
}

// run looks until ctx ends, last is called or a look fails. An idle database is looked at once a
// minute. During a backlog the WAL is proven far ahead of the rows, so there is only a report.
func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	var latest time.Time
	for {
		if w.pipeline.position() > w.proven() || time.Since(latest) >= measureInterval {
			latest = time.Now()
			if err := w.look(ctx); err != nil {
				w.mu.Lock()
				w.err = err
				w.mu.Unlock()
				return
			}
		}
		w.report()
		select {
		case <-ctx.Done():
			return
		case <-w.stop:
			return
		case <-w.pipeline.many:
		case <-time.After(w.relay.reportEvery):
		}
	}
}

// proven returns the position up to which every insert was published.
func (w *watcher) proven() pglogrepl.LSN {
	if sabotage.On(sabotage.LookOnlyAtStart) {
		return math.MaxUint64
	}
	return pglogrepl.LSN(w.position.Load())
}

// failure returns why run gave up, or nil.
func (w *watcher) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// look makes one look. It notes the position before the look. A position that is noted afterwards
// could be after a change that the look did not see.
func (w *watcher) look(ctx context.Context) error {
	if sabotage.On(sabotage.LookOnlyAtStart) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	text, err := dbgen.New(w.conn).WALInsertPosition(ctx)
	if err != nil {
		return fmt.Errorf("noting the position of the WAL: %w", err)
	}
	position, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("noting the position of the WAL: %w", err)
	}
	look, err := outbox.LookAtPublication(ctx, w.conn)
	if err != nil {
		return err
	}
	if err := w.relay.checkLook(ctx, w.conn, look, true); err != nil {
		return err
	}
	if !look.Changing {
		w.position.Store(uint64(position))
		return nil
	}
	if time.Since(w.told) >= measureInterval {
		w.told = time.Now()
		w.relay.log.Warn("an open transaction changes table outbox or its publication: nothing is confirmed until it ends",
			"hop", 3, "slot", w.relay.slot)
	}
	return nil
}

// last ends run and makes a last look, so that a relay that stops can confirm all that was accepted.
func (w *watcher) last(ctx context.Context) error {
	close(w.stop)
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := w.failure(); err != nil || w.pipeline.position() <= w.proven() {
		return err
	}
	return w.look(ctx)
}

// checkLook returns a *SetupError when inserts into outbox may not be published, or may not have
// been since the look before.
func (r *Relay) checkLook(ctx context.Context, conn *pgx.Conn, look outbox.Look, slotExists bool) error {
	before := r.identity
	switch {
	case look.Problem != "" && !slotExists:
		return &SetupError{look.Problem, look.Remedy}
	case look.Problem != "":
		return r.missed(ctx, conn, look.Problem, look.Remedy)
	case slotExists && before != "" && before != look.Identity && before != look.Replaced:
		return r.missed(ctx, conn, fmt.Sprintf("table outbox or publication %s was changed under the relay, and inserts may not have been published meanwhile",
			outbox.Publication), "make sure that table public.outbox holds every event that was written")
	}
	// Set these only now. If the mark cannot be written, the next session has to find the same.
	r.identity, r.outboxID = look.Identity, look.RelationID
	return nil
}

// missed marks the WAL and returns the *SetupError for inserts that are not in the slot's stream.
// Without the mark, a person who undoes the change and starts the relay again would lose them,
// because the slot skips them without an error.
func (r *Relay) missed(ctx context.Context, conn *pgx.Conn, problem, remedy string) error {
	if err := dbgen.New(conn).MarkWAL(ctx, dbgen.MarkWALParams{Prefix: markPrefix, Slot: r.slot}); err != nil {
		return fmt.Errorf("%s: marking the WAL: %w", problem, err)
	}
	return &SetupError{problem, remedy + "; then " + dropSlot(r.slot)}
}

// marked returns the error for a relay that reads the mark. By default every user of the database can write it, too. Nothing in the WAL
// distinguishes such a mark, so the relay never passes one.
func marked(slot string) error {
	return &SetupError{
		fmt.Sprintf("a mark in the WAL says that inserts may be missing from what slot %s can still read. A relay writes the mark and then ends with the reason, "+
			"most likely that publication %s did not publish all inserts. Any user of the database can write it with pg_logical_emit_message, too",
			slot, outbox.Publication),
		"make sure that table public.outbox holds every event that was written; then " + dropSlot(slot) +
			". If no relay has ended with a reason, somebody else wrote the mark (slot-moved in docs/operations.md)",
	}
}

// dropSlot returns the last step of every remedy that loads the retained rows again.
func dropSlot(slot string) string {
	return fmt.Sprintf("run SELECT pg_drop_replication_slot('%s'); the next start then loads the retained rows of outbox again (duplicates, no loss)", slot)
}
