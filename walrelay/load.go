package walrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

const (
	// loadPage is how many rows are read at once: 64 of the largest are 4 MB.
	loadPage = 64
	// renewInterval is the longest time between two statements with which the loader renews its
	// lease and looks at its slot.
	renewInterval = time.Second
	// settleInterval is between two looks at whether the commits of a snapshot have settled. Most
	// take microseconds, and some milliseconds on a busy machine.
	settleInterval = 5 * time.Millisecond
)

// load makes the slot without a gap. A slot sees only what commits after it. Everything older is in
// the table. So load makes a temporary slot, and sends the rows of exactly the snapshot that the
// slot begins at, as operation load. When Kinesis has accepted all of them, it makes a permanent
// copy of the slot. A crash before the copy leaves no slot, and the next start loads again.
//
// The obvious order makes the permanent slot first. After a crash it leaves a slot that looks as if
// the load had been done.
//
// Of several relays one loads, because it holds a lock. The others stand by. The lock, the
// temporary slot and the snapshot belong to one session, so they end together, and the loader
// notices with its next statement. The server ends the session of a loader that falls silent (the
// lease). A loader that was only frozen then goes on sending what it holds beside its successor.
// Both send an aggregate's versions in order from the lowest. So whichever sends a version first,
// the versions before it are on the stream. The rest are duplicates. The frozen loader cannot make
// the slot, because its temporary slot is gone.
//
// A load that fails starts over. Another way would be to go on after the last accepted row with a
// new snapshot. That would have to find the rows before it that were committed between the two
// snapshots. Their xids show them, but not after a failover, an attached partition or a swapped
// table, and then events would be lost. Duplicates are cheaper.
func (r *Relay) load(ctx context.Context, control *pgx.Conn) error {
	start := time.Now()
	setup, cancel := context.WithTimeout(ctx, r.setupFor)
	defer cancel()
	lease, err := loadLease(setup, control)
	if err != nil {
		return err
	}
	session, err := r.connectLoader(setup, lease)
	if err != nil {
		return err
	}
	defer closeConn(session.PgConn())
	queries := dbgen.New(session)
	// The relay that gets the lock second finds the slot made.
	if locked, err := queries.LoadLock(setup, r.slot); err != nil {
		return fmt.Errorf("locking the load: %w", err)
	} else if !locked {
		return errSlotActive
	}
	if exists, err := r.checkSlot(setup, queries); err != nil || exists {
		return err
	}
	l := &loader{
		relay: r, session: session, control: control, lease: lease, pipeline: newPipeline(),
		slot: fmt.Sprintf("%.40s_load_%d", r.slot, session.PgConn().PID()),
	}
	r.enter(phase{state: stateLoading, slot: l.slot, pipeline: l.pipeline})
	before, err := outbox.LookAtPublication(setup, control)
	if err != nil {
		return err
	}
	if err := l.loadRows(ctx); err != nil {
		return l.explain(ctx, err)
	}
	if err := l.lookAgain(ctx, before); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RelayBeforeSlotCopy)
	stop := r.waiting(ctx, "the copy of the slot", l.blocker)
	err = queries.SlotCopy(ctx, dbgen.SlotCopyParams{Source: l.slot, Slot: r.slot})
	stop()
	if sabotage.On(sabotage.LoadWithoutSnapshot) {
		_, err = session.Exec(ctx, "SELECT pg_drop_replication_slot($1), pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
	}
	if err != nil {
		return l.explain(ctx, fmt.Errorf("copying slot %s to %s: %w", l.slot, r.slot, err))
	}
	failpoint.Hit(failpoint.RelayAfterSlotCopy)
	r.log.Info("load complete, slot made", "hop", 4, "slot", r.slot, "rows", l.read, "duration_ms", time.Since(start).Milliseconds())
	return nil
}

// lookAgain refuses the slot if inserts were not published while the load went on. The slot begins before them, so it would pass them in
// silence. The next load has their rows.
func (l *loader) lookAgain(ctx context.Context, before outbox.Look) error {
	if sabotage.On(sabotage.LookOnlyAtStart) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.lease)
	defer cancel()
	now, err := outbox.LookAtPublication(ctx, l.control)
	switch {
	case err != nil:
		return err
	case now.Problem != "":
		return &SetupError{now.Problem, now.Remedy}
	case now.Changing || now.Identity != before.Identity:
		return fmt.Errorf("table outbox or publication %s was changed while the rows were loaded: loading again", outbox.Publication)
	}
	return nil
}

// loadLease returns how long a loader may send nothing before the server ends its session. A relay
// that streams gets the same time.
func loadLease(ctx context.Context, control *pgx.Conn) (time.Duration, error) {
	timeout, err := walSenderTimeout(ctx, control)
	if err != nil {
		return 0, err
	}
	if timeout == 0 {
		timeout = time.Minute // PostgreSQL's default. Without a limit a frozen loader would keep every other relay from loading.
	}
	return max(timeout, minPatience), nil // a busy machine is not a frozen one
}

// connectLoader opens the loader's session. It is a replication connection, because only such a session can make a slot and read the
// snapshot that the slot begins at.
func (r *Relay) connectLoader(ctx context.Context, lease time.Duration) (*pgx.Conn, error) {
	session, err := r.database.Connect(ctx, func(config *pgx.ConnConfig) {
		config.RuntimeParams["replication"] = "database"
		config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // a replication connection has no other
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err) // pgconn's text has no password
	}
	if err := dbgen.New(session).LoadSession(ctx, fmt.Sprint(lease.Milliseconds())); err != nil {
		closeConn(session.PgConn())
		return nil, fmt.Errorf("setting the loader's time limits: %w", err)
	}
	if err := r.checkPrimary(ctx, session.PgConn()); err != nil {
		closeConn(session.PgConn())
		return nil, err
	}
	return session, nil
}

// loader is one load. One goroutine uses it.
type loader struct {
	relay    *Relay
	session  *pgx.Conn // has the lock, the temporary slot and the snapshot
	control  *pgx.Conn // asks about session while session is busy
	lease    time.Duration
	slot     string        // the temporary one
	begins   pglogrepl.LSN // every commit that the snapshot sees is before it
	pipeline *pipeline
	total    int64 // rows of the snapshot
	read     int64 // rows read so far
	room
	nextLook time.Time
	lines    *pace
}

// loadRows makes the temporary slot, and returns when Kinesis has accepted every row of its snapshot.
func (l *loader) loadRows(ctx context.Context) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, l.session, options, func(tx pgx.Tx) error {
		if err := l.makeSlot(ctx); err != nil {
			return err
		}
		askCtx, cancel := context.WithTimeout(ctx, l.lease)
		err := checkOneServer(askCtx, l.control, l.session.PgConn(), l.slot)
		cancel()
		if err != nil {
			return err
		}
		if err := l.settle(ctx, dbgen.New(tx)); err != nil {
			return err
		}
		if err := l.count(ctx, dbgen.New(tx)); err != nil {
			return err
		}
		l.lines = newPace()
		if err := l.look(ctx); err != nil {
			return err
		}
		l.relay.log.Info("slot is missing: loading the retained rows", "hop", 3, "slot", l.relay.slot,
			"rows", l.total, "retained_wal_bytes", l.before.Retained, "safe_wal_bytes", l.before.SafeWalSize)
		if err := l.awaitStandbys(ctx); err != nil {
			return err
		}

		sendCtx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			sender{l.relay.kinesis, l.relay.stream, l.relay.slot, l.relay.log, &l.relay.numbers}.run(sendCtx, l.pipeline)
		}()
		defer func() {
			cancel()
			<-done
		}()
		if err := l.readRows(ctx, dbgen.New(tx)); err != nil {
			return err
		}
		return l.await(ctx, l.pipeline.empty)
	})
}

// mendIndex is the remedy for an outbox_pkey that does not serve the load.
const mendIndex = "run REINDEX TABLE public.outbox, then start the relay again"

// count counts the rows of the snapshot, and refuses an index that would lead to them in another order than the server compares by.
// Nothing has been sent yet. readRows goes by that index from page to page, so it would leave rows out, or read versions of an aggregate
// in the wrong order.
func (l *loader) count(ctx context.Context, snapshot *dbgen.Queries) (err error) {
	defer l.relay.waiting(ctx, "the count of outbox's rows", l.blocker)()
	if l.total, err = snapshot.OutboxCount(ctx); err != nil {
		return fmt.Errorf("counting the rows of outbox: %w", err)
	}
	misplaced, err := snapshot.OutboxMisplaced(ctx)
	if err != nil {
		return fmt.Errorf("reading the order of index outbox_pkey: %w", err)
	}
	if misplaced > 0 {
		return &SetupError{
			fmt.Sprintf("index outbox_pkey has %d of the %d rows of outbox at a place that the server no longer gives them", misplaced, l.total),
			mendIndex,
		}
	}
	return nil
}

// makeSlot makes the temporary slot, which goes with the session. The transaction gets the snapshot that the slot begins at.
func (l *loader) makeSlot(ctx context.Context) error {
	l.relay.log.Info("making a slot: the server first waits for the end of every open and prepared transaction", "hop", 3, "slot", l.relay.slot)
	stop := l.relay.waiting(ctx, "transactions to end", l.blocker)
	made, err := pglogrepl.CreateReplicationSlot(ctx, l.session.PgConn(), l.slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Temporary:      true,
		SnapshotAction: "USE_SNAPSHOT",
		Mode:           pglogrepl.LogicalReplication,
	})
	stop()
	if err != nil {
		return fmt.Errorf("creating temporary slot %s: %w", l.slot, err)
	}
	if l.begins, err = pglogrepl.ParseLSN(made.ConsistentPoint); err != nil {
		return fmt.Errorf("creating temporary slot %s: %w", l.slot, err)
	}
	// Try the copy now. If it failed only at the end, every row would have been sent for nothing.
	queries := dbgen.New(l.session)
	probe := dbgen.SlotCopyParams{Source: l.slot, Slot: l.slot + "_probe", Temporary: true}
	if err := queries.SlotCopy(ctx, probe); err != nil {
		return fmt.Errorf("copying a slot: %w", err)
	}
	if err := queries.SlotDrop(ctx, probe.Slot); err != nil {
		return fmt.Errorf("dropping slot %s: %w", probe.Slot, err)
	}
	return nil
}

// settle waits until every transaction that the snapshot sees as committed is so for the whole server. The server makes the snapshot of a
// slot from the WAL, and a commit is in the WAL a moment before it is in the commit log. A read in that moment takes the row's writer for
// aborted and marks the row so, for every later reader. The row is then lost, although its commit was answered. A commit that waits for a
// synchronous standby is not settled either. The question goes through the loader's session, so it renews the lease.
func (l *loader) settle(ctx context.Context, snapshot *dbgen.Queries) error {
	for lines := newPace(); ; wait(ctx, settleInterval) {
		askCtx, cancel := context.WithTimeout(ctx, l.lease)
		writer, err := snapshot.LoadUnsettled(askCtx)
		cancel()
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("waiting for the commits of the slot's snapshot: %w", err)
		case lines.due():
			l.relay.logWaiting(ctx, "the commits of the snapshot", lines, blockerAttributes(dbgen.SessionBlockerRow(writer)))
		}
	}
}

// readRows hands the rows of the snapshot to the pipeline, ordered by aggregate and version. The error is a *SetupError when it has found
// other rows than were counted.
func (l *loader) readRows(ctx context.Context, snapshot *dbgen.Queries) error {
	for after := (dbgen.OutboxPageParams{MaxRows: loadPage}); ; {
		pageCtx, cancel := context.WithTimeout(ctx, l.lease)
		page, err := snapshot.OutboxPage(pageCtx, after)
		cancel()
		if err != nil {
			return fmt.Errorf("reading outbox behind %s %s: %w", after.AggregateType, after.AggregateID, err)
		}
		records := make([]*pending, len(page))
		for i, row := range page {
			record := outbox.Record{Row: row, Operation: outbox.OperationLoad, Timestamp: time.Now()}
			if records[i], err = newPending(record, nil); err != nil {
				return err
			}
		}
		l.pipeline.add(records...)
		l.read += int64(len(page))
		if len(page) < loadPage {
			break
		}
		last := page[len(page)-1]
		after.AggregateType, after.AggregateID, after.AggregateVersion = last.AggregateType, last.AggregateID, last.AggregateVersion
		if err := l.await(ctx, func() bool { return !l.pipeline.full() }); err != nil {
			return err
		}
	}
	// An index that lacks entries is in good order. The count has not gone by this index.
	if l.read != l.total {
		return &SetupError{fmt.Sprintf("index outbox_pkey has led to %d of the %d rows of outbox", l.read, l.total), mendIndex}
	}
	return nil
}

// await returns when the condition holds. Until then it renews the lease.
func (l *loader) await(ctx context.Context, condition func() bool) error {
	for {
		if !time.Now().Before(l.nextLook) {
			if err := l.look(ctx); err != nil {
				return err
			}
		}
		waitCtx, cancel := context.WithDeadline(ctx, l.nextLook)
		err := l.pipeline.await(waitCtx, condition)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// blocker returns members of a log line that name what the loader's session waits for.
func (l *loader) blocker(ctx context.Context) []slog.Attr {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	blocker, err := dbgen.New(l.control).SessionBlocker(ctx, int32(l.session.PgConn().PID())) //nolint:gosec // a process id
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return []slog.Attr{slog.String("blocker", err.Error())}
	}
	return blockerAttributes(blocker)
}

func blockerAttributes(blocker dbgen.SessionBlockerRow) []slog.Attr {
	if blocker.Pid == 0 {
		return []slog.Attr{slog.String("prepared_transaction", blocker.Gid)}
	}
	return []slog.Attr{slog.Int64("pid", int64(blocker.Pid)), slog.String("application_name", blocker.ApplicationName)}
}

// await returns when the condition holds, with an error when ctx ends or Kinesis refuses for good first.
func (p *pipeline) await(ctx context.Context, condition func() bool) error {
	for !condition() {
		if err := p.failure(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.progress:
		}
	}
	return nil
}
