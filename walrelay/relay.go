// Package walrelay carries committed events from the WAL to Kinesis (③④). It does what a DMS task does for table outbox, and
// writes the same records, so that the consumer cannot tell them apart. On top of that it sends each aggregate's events in order.
//
// In: the logical replication stream of publication outbox_publication, read through a slot.
// Out: one Kinesis record per row of outbox, partition key aggregate_id.
// Only the records on the Kinesis stream decide how far the slot is confirmed. So a crash at any point costs
// duplicates, never events.
//
// relay.go runs sessions, sqlstate.go decides what follows from their errors, preflight.go checks the set-up, load.go brings the rows that
// a new slot cannot see, room.go looks whether the server keeps the WAL for that long, stream.go reads the WAL, decode.go understands it,
// pipeline.go keeps the order, put.go sends, sequence.go looks in which order Kinesis stores, watch.go proves that nothing is missing from
// the WAL, measure.go measures the slot, promotion.go keeps the slot when a standby becomes the primary, waiting.go tells the log what the
// relay waits for.
package walrelay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"rds-outbox-demo/internal/rdsdb"
)

const (
	// setupTimeout bounds the steps before the load or the stream, which are connecting, preflight and
	// START_REPLICATION. A server whose address is gone neither answers nor refuses them.
	setupTimeout = 15 * time.Second
	// readChunk is how much of the WAL is read at once. The server sends each message by itself. If they are
	// read one by one, as the driver does with its 8 KiB, each costs a system call and a wake-up on both sides.
	readChunk = 256 << 10
	// standbyInterval is how often a standby looks whether the slot has become free.
	standbyInterval = time.Second
	// drainTimeout bounds how long a stopping relay waits for the answers to what it has read. What is unanswered then is read
	// again by the next one.
	drainTimeout = 3 * time.Second
	// maxUnknownBackoff is the longest wait after an error that may stay. Each attempt may send again what the last one sent.
	maxUnknownBackoff = 5 * time.Minute
	// loadBackoff is the longest wait after a load that the server does not keep the WAL for.
	loadBackoff = time.Hour
)

// Kinesis is the part of the SDK's Kinesis client that the relay uses.
type Kinesis interface {
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	PutRecords(context.Context, *kinesis.PutRecordsInput, ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

// Config says what to relay where. Every field is required.
type Config struct {
	// Database opens sessions in the database of table outbox. Its user needs REPLICATION (on RDS: rds_replication) and outbox_relay's
	// SELECT for the initial load. Do not connect through a pooler, because replication needs its own session.
	Database *rdsdb.Login
	// Stream is the name of the Kinesis data stream.
	Stream string
	// Slot is the name of the replication slot. It has 1-63 of a-z, 0-9 and _, and does not begin with a digit. Relays with the same slot are active and standby.
	Slot    string
	Kinesis Kinesis
	Log     *slog.Logger
}

// Relay relays one database's outbox to one stream.
type Relay struct {
	database *rdsdb.Login
	stream   string
	slot     string
	kinesis  Kinesis
	log      *slog.Logger
	setupFor time.Duration // setupTimeout
	drainFor time.Duration // drainTimeout

	reportEvery  time.Duration // reportInterval
	measureEvery time.Duration // measureInterval
	phase        atomic.Pointer[phase]
	entered      chan struct{} // a line about the phase is due
	starts       start         // of the phases to come. Run's goroutine alone uses it.

	// identity and outboxID are from the latest look at the publication. They outlive a session,
	// because a change between two sessions is as bad as one within a session.
	identity string
	outboxID uint32

	numbers sequences // of what Kinesis has accepted

	primary  *pglogrepl.IdentifySystemResult // of the latest session
	promoted string                          // the latest word about a promotion

	undescribed bool // the latest look at the stream failed, and the log says so
}

// slotPattern refuses a digit at the beginning, because START_REPLICATION takes the name unquoted.
var slotPattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// New checks the configuration. It does not connect.
func New(c Config) (*Relay, error) {
	switch {
	case c.Database == nil:
		return nil, errors.New("walrelay: Database is nil")
	case c.Stream == "":
		return nil, errors.New("walrelay: Stream is empty")
	case !slotPattern.MatchString(c.Slot):
		return nil, fmt.Errorf("walrelay: Slot %q must be 1-63 of a-z, 0-9 and _, and not begin with a digit", c.Slot)
	case c.Kinesis == nil:
		return nil, errors.New("walrelay: Kinesis is nil")
	case c.Log == nil:
		return nil, errors.New("walrelay: Log is nil")
	}
	r := &Relay{
		database: c.Database, stream: c.Stream, slot: c.Slot, kinesis: c.Kinesis, log: c.Log,
		setupFor: setupTimeout, drainFor: drainTimeout, reportEvery: reportInterval, measureEvery: measureInterval, entered: make(chan struct{}, 1),
	}
	r.phase.Store(&phase{state: stateConnecting, slot: c.Slot})
	return r, nil
}

// Run relays until ctx ends. It then waits up to 3 s for outstanding answers, confirms them and
// returns nil. While another relay holds the slot it stands by. It waits for a lost connection, a
// restarted server and a refusal by Kinesis to pass. It also waits after an unknown error, for
// minutes if the error repeats, and for up to an hour after a load that takes too long. The error is a *SetupError, or one of Kinesis that no retry mends,
// such as a stream that is gone. Both need a person. Nothing is lost meanwhile, because the slot
// keeps the WAL.
func (r *Relay) Run(ctx context.Context) error {
	measuring, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { r.measure(measuring) })
	defer group.Wait()
	defer cancel()
	standby := false
	var standing *pace // of the standby's lines
	passing := streak{first: minBackoff, longest: maxBackoff}
	lasting := streak{first: time.Second, longest: maxUnknownBackoff}
	outlasting := streak{first: loadBackoff, longest: loadBackoff}
	for ctx.Err() == nil {
		streamed, err := r.session(ctx)
		reaction, err := r.react(err)
		switch {
		case ctx.Err() != nil:
		case reaction == stops:
			return err
		case reaction == standsBy:
			r.enter(phase{state: stateStandby, slot: r.slot})
			if !standby {
				standing = newPace()
			}
			if !standby || standing.due() {
				r.log.Info("standby: another relay holds the slot", "hop", 3, "slot", r.slot, "seconds", standing.lasted())
			}
			// lasting is not reset. Otherwise each of two relays that fail in turn would count its
			// failure as the first.
			standby, passing.attempts = true, 0
			wait(ctx, standbyInterval)
			continue
		case err == nil: // the slot was made
			passing.attempts, lasting.attempts, outlasting.attempts, r.starts.failed = 0, 0, 0, false
		case reaction == unknown:
			r.waitAgain(ctx, &lasting, streamed, err)
		case reaction == waitsLong:
			r.waitAgain(ctx, &outlasting, streamed, err)
		default:
			r.waitAgain(ctx, &passing, streamed, err)
		}
		standby = false
	}
	return nil
}

// waitAgain logs a failure and waits until the next session.
func (r *Relay) waitAgain(ctx context.Context, s *streak, streamed time.Duration, err error) {
	r.sessionFailed()
	r.enter(phase{state: stateConnecting, slot: r.slot})
	delay := s.failed(streamed)
	r.log.Warn("session ended, connecting again", "hop", 3, "slot", r.slot,
		"attempts", s.attempts, "since", s.since, "retry_in_ms", delay.Milliseconds(), "error", err)
	defer r.waiting(ctx, "the next session", nil)()
	wait(ctx, delay)
}

// session connects and streams until ctx or the connection ends. If the slot is missing, it makes
// the slot and ends. The temporary slot that the load needs lives as long as its connection, and
// would hold back WAL for as long as we stream on it. streamed is how long the session has been
// streaming.
func (r *Relay) session(ctx context.Context) (streamed time.Duration, err error) {
	setup, cancel := context.WithTimeout(ctx, r.setupFor)
	defer cancel()
	stop := r.waiting(setup, "a connection to PostgreSQL", nil)
	control, err := r.database.Connect(setup, nil)
	stop()
	if err != nil {
		return 0, fmt.Errorf("connecting to PostgreSQL: %w", err) // pgconn's text has no password
	}
	defer closeConn(control.PgConn())
	slotExists, err := r.preflight(setup, control)
	if err != nil {
		return 0, err
	}
	if !slotExists {
		if err := r.load(ctx, control); err != nil {
			return 0, fmt.Errorf("%w: %w", errInitialLoad, err)
		}
		return 0, nil
	}
	stop = r.waiting(setup, "a replication connection to PostgreSQL", nil)
	replication, err := r.database.Connect(setup, func(config *pgx.ConnConfig) {
		config.RuntimeParams["replication"] = "database"
		config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(r, readChunk), w)
		}
	})
	stop()
	if err != nil {
		return 0, fmt.Errorf("connecting to PostgreSQL for replication: %w", err)
	}
	defer closeConn(replication.PgConn())
	if err := r.checkPrimary(setup, replication.PgConn()); err != nil {
		return 0, err
	}
	if err := r.makeFailoverSlot(setup, control, replication.PgConn()); err != nil {
		return 0, err
	}
	timeout, err := walSenderTimeout(setup, control)
	if err != nil {
		return 0, err
	}
	stop = r.waiting(setup, "the slot's stream to start", nil)
	err = r.startReplication(setup, replication.PgConn())
	stop()
	if err != nil {
		return 0, fmt.Errorf("streaming from slot %s: %w", r.slot, err)
	}
	if err := checkOneServer(setup, control, replication.PgConn(), r.slot); err != nil {
		return 0, err
	}
	start := time.Now()
	err = r.streamWAL(ctx, control, replication.PgConn(), timeout)
	return time.Since(start), err
}

// closeConn ends a connection even when the context of its work has ended.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // a connection that is gone already is as good
}
