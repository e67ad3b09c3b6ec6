package walrelay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// reportInterval is how often the relay proves the confirmed position (watcher) and reports it to the
// server. It does both sooner after reportedRows rows. It also reports sooner where wal_sender_timeout needs that.
const reportInterval = time.Second

// minPatience is how long a server may at least say nothing.
const minPatience = 10 * time.Second

// wal is one streaming connection. Its goroutine alone reads and writes the connection.
type wal struct {
	conn           *pgconn.PgConn
	pipeline       *pipeline
	watcher        *watcher
	decoder        decoder
	transaction    *transaction // being received
	slot           string
	statusInterval time.Duration
	nextStatus     time.Time
	report         atomic.Bool   // a status is due before that
	patience       time.Duration // with a server that says nothing, though each status asks it to
	lastHeard      time.Time
}

// intervals returns how often the server hears the confirmed position, and how long it may say nothing.
func intervals(reportEvery, walSenderTimeout time.Duration) (status, patience time.Duration) {
	if walSenderTimeout == 0 { // off
		return reportEvery, minPatience
	}
	// The patience is longer than the server's own, because it may be busy with a large transaction of other tables.
	return min(reportEvery, walSenderTimeout/3), max(minPatience, 3*walSenderTimeout)
}

// startReplication makes conn a streaming connection.
func (r *Relay) startReplication(ctx context.Context, conn *pgconn.PgConn) error {
	var from pglogrepl.LSN // 0 is the slot's confirmed position. Any other could skip records that were never accepted.
	if sabotage.On(sabotage.StartAtCurrentLSN) {
		if system, err := pglogrepl.IdentifySystem(ctx, conn); err == nil {
			from = system.XLogPos
		}
	}
	return pglogrepl.StartReplication(ctx, conn, r.slot, from, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		// Messages bring the mark that an earlier relay may have left in the WAL (Relay.missed).
		PluginArgs: []string{"proto_version '1'", fmt.Sprintf("publication_names '%s'", outbox.Publication), "messages 'true'"},
	})
}

// streamWAL reads the slot into a pipeline and confirms what Kinesis has accepted, until ctx or the
// connection ends. control is a second connection, because the streaming one takes no queries.
func (r *Relay) streamWAL(ctx context.Context, control *pgx.Conn, conn *pgconn.PgConn, walSenderTimeout time.Duration) error {
	r.log.Info("streaming", "hop", 3, "slot", r.slot, "stream", r.stream)

	w := &wal{
		conn:      conn,
		pipeline:  newPipeline(),
		decoder:   decoder{slot: r.slot, outboxID: r.outboxID, outboxes: map[uint32][]string{}},
		slot:      r.slot,
		lastHeard: time.Now(),
	}
	r.enter(phase{state: stateStreaming, slot: r.slot, pipeline: w.pipeline})
	w.statusInterval, w.patience = intervals(r.reportEvery, walSenderTimeout)
	w.watcher = r.newWatcher(control, w)
	// Senders and watcher outlive ctx, because a stopping relay still waits for their answers.
	sendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { sender{r.kinesis, r.stream, r.slot, r.log, &r.numbers}.run(sendCtx, w.pipeline) })
	group.Go(func() { w.watcher.run(sendCtx) })
	defer func() {
		cancel()
		group.Wait() // a session that goes on sending could overtake the next one
	}()

	err := w.read(ctx, func() bool { return false })
	drainCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), r.drainFor)
	defer stop()
	if err == nil {
		err = w.finishTransaction(drainCtx, r.drainFor/2)
	}
	if err != nil && conn.IsClosed() {
		// The driver closes a connection that has failed, and may still be writing to it.
		return err
	}
	if err != nil && sabotage.On(sabotage.NoDrainOnError) {
		return err
	}
	// Drain after an error, too. Records that were accepted but not confirmed come again with the
	// next session. If the error is in the WAL itself, every session would send the same records
	// again and get no further.
	return cmp.Or(err, w.drain(drainCtx))
}

// finishTransaction reads the rest of a transaction that has been received in part, for at most the given time. Only its commit can be
// confirmed. Without the rest, all its records that are on the stream would come again.
func (w *wal) finishTransaction(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.read(ctx, func() bool { return w.transaction == nil })
}

// read passes messages to the pipeline until ctx ends or there is enough (nil), or something fails. While the pipeline is full it does
// not read, but keeps reporting its position, because the server cuts off a client that is silent under backpressure.
func (w *wal) read(ctx context.Context, enough func() bool) error {
	// A read that waits for the next message ends at once when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		if err := cmp.Or(w.pipeline.failure(), w.watcher.failure()); err != nil {
			return err
		}
		if err := w.statusIfDue(); err != nil {
			return err
		}
		// Look at ctx only now. The status puts off the read deadline, also one that the end of ctx has set.
		if ctx.Err() != nil || enough() {
			return nil
		}
		if w.pipeline.full() {
			w.waitForProgress(ctx)
			w.lastHeard = time.Now() // nobody was listening
			continue
		}
		// ReceiveMessage with a context costs a watcher per message. The read deadline has the same effect.
		message, err := w.conn.ReceiveMessage(context.Background())
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			// A server whose address is gone answers nothing and refuses nothing. TCP alone would
			// notice after a quarter of an hour.
			if time.Since(w.lastHeard) > w.patience {
				return fmt.Errorf("reading the WAL: the server has not answered for %s: %w", w.patience, err)
			}
			// A reportNow whose status has gone out already leaves a deadline in the past. Without this
			// every read would end at once until the next status.
			if err := w.conn.Conn().SetReadDeadline(w.nextStatus); err != nil {
				return fmt.Errorf("setting the read deadline: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the WAL: %w", err)
		}
		w.lastHeard = time.Now()
		if err := w.handle(message); err != nil {
			return err
		}
	}
}

// drain waits for what is on its way until ctx ends, then leaves the server with the position reached.
func (w *wal) drain(ctx context.Context) error {
	for !w.pipeline.empty() && ctx.Err() == nil && w.pipeline.failure() == nil {
		w.waitForProgress(ctx)
		if err := w.statusIfDue(); err != nil {
			return err
		}
	}
	if err := w.watcher.last(ctx); err != nil {
		return cmp.Or(w.status(), err)
	}
	return w.status()
}

func (w *wal) waitForProgress(ctx context.Context) {
	timer := time.NewTimer(time.Until(w.nextStatus))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.pipeline.progress:
	}
}

func (w *wal) handle(message pgproto3.BackendMessage) error {
	switch message := message.(type) {
	case *pgproto3.CopyData:
		return w.copyData(message.Data)
	case *pgproto3.ErrorResponse:
		if message.Code == "42704" && strings.Contains(message.Message, outbox.Publication) { // undefined_object
			return publicationGone(w.slot, message.Message)
		}
		return fmt.Errorf("reading the WAL: %w", pgconn.ErrorResponseToPgError(message))
	case *pgproto3.NoticeResponse:
		if strings.Contains(message.Message, outbox.Publication) {
			return publicationGone(w.slot, message.Message)
		}
		return nil
	case *pgproto3.ParameterStatus:
		return nil
	default:
		return fmt.Errorf("reading the WAL: the server ended the stream with %T: %w", message, io.EOF)
	}
}

func (w *wal) copyData(data []byte) error {
	if len(data) == 0 {
		return errors.New("reading the WAL: empty message")
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return fmt.Errorf("reading a keepalive: %w", err)
		}
		w.pipeline.keepalive(keepalive.ServerWALEnd)
		if keepalive.ReplyRequested {
			return w.status()
		}
		return nil
	case pglogrepl.XLogDataByteID:
		xlog, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return fmt.Errorf("reading the WAL: %w", err)
		}
		message, err := w.decoder.decode(xlog.WALStart, xlog.WALData)
		if err != nil {
			return err
		}
		return w.apply(message)
	default:
		return fmt.Errorf("reading the WAL: unknown message %q", data[0])
	}
}

func (w *wal) apply(message decoded) error {
	switch message.change {
	case changeBegin:
		w.transaction = w.pipeline.begin()
	case changeInsert:
		if w.transaction == nil {
			return errors.New("reading the WAL: insert outside a transaction")
		}
		inserted, err := newPending(message.record, w.transaction)
		if err != nil {
			return err
		}
		w.pipeline.add(inserted)
	case changeCommit:
		if w.transaction == nil {
			return errors.New("reading the WAL: commit outside a transaction")
		}
		w.pipeline.commit(w.transaction, message.end)
		w.transaction = nil
	case changeNone:
	}
	return nil
}

// reportNow lets the connection's goroutine send a status at once, wherever it waits.
func (w *wal) reportNow() {
	w.report.Store(true)
	_ = w.conn.Conn().SetReadDeadline(time.Unix(1, 0))
	w.pipeline.signal()
}

// statusIfDue looks again after a status, which puts the read deadline off. A reportNow before that
// would wait for the next message otherwise.
func (w *wal) statusIfDue() error {
	for w.report.Swap(false) || !time.Now().Before(w.nextStatus) {
		if err := w.status(); err != nil {
			return err
		}
	}
	return nil
}

// status tells the server the position up to which every record is on the Kinesis stream. The server streams again
// from there, and may remove the WAL before it.
func (w *wal) status() error {
	lsn := min(w.pipeline.position(), w.watcher.proven())
	failpoint.Hit(failpoint.RelayBeforeConfirm)
	// All three are set, because SendStandbyStatusUpdate would replace a zero by the first one.
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), w.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: lsn, WALFlushPosition: lsn, WALApplyPosition: lsn,
		ReplyRequested: true, // see patience
	})
	if err != nil {
		return fmt.Errorf("confirming %s: %w", lsn, err)
	}
	failpoint.Hit(failpoint.RelayAfterConfirm)
	w.nextStatus = time.Now().Add(w.statusInterval)
	if err := w.conn.Conn().SetReadDeadline(w.nextStatus); err != nil {
		return fmt.Errorf("setting the read deadline: %w", err)
	}
	return nil
}
