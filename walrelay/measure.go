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
	"rds-outbox-demo/internal/emf"
)

// measureInterval is how often the slot is measured; CloudWatch keeps one value a minute.
const measureInterval = time.Minute

// provenAfter is how long a session lasts that shows by this alone that it works, because an idle database moves no position.
const provenAfter = time.Minute

// dimensions are the members that tell the relays of an account apart. The slot does not suffice, because the databases of two
// stages have slots of the same name, and an alarm would stay silent while the other stage's relay streams.
var dimensions = []string{"StreamName", "SlotName"}

// The states of a relay, as member state of its line slot names them.
const (
	stateConnecting = "connecting" // at the start, and between two sessions
	stateStreaming  = "streaming"
	stateLoading    = "loading" // also while it waits for the slot
	stateStandby    = "standby"
)

// phase is what the relay does at the moment.
type phase struct {
	state    string
	slot     string    // the slot that holds back the WAL for it. While it loads, that is the temporary slot.
	pipeline *pipeline // of stateStreaming and stateLoading
	start
}

// start is what a phase begins with.
type start struct {
	at       time.Time
	failed   bool          // a session that streamed or loaded has failed, and no load has succeeded since
	furthest pglogrepl.LSN // position of the failed sessions
}

// works reports whether the relay streams or loads, and Kinesis takes what it sends. After a failure a session has to show first that it
// does. One that ends at the same change again and again streams for a moment each time, and an alarm that takes that for work never comes.
func (p *phase) works() bool {
	switch {
	case p.pipeline == nil || p.pipeline.hindrance() != "":
		return false
	case !p.failed:
		return true // at once, because the alarm is made when the first relay has begun
	}
	return p.pipeline.position() > p.furthest || time.Since(p.at) >= provenAfter
}

// enter begins a phase. Its first line comes at once.
func (r *Relay) enter(p phase) {
	p.start = r.starts
	p.at = time.Now()
	before := r.phase.Swap(&p)
	if p.state == before.state || p.state == stateConnecting {
		return // a relay that is refused again and again would open a session more each time
	}
	select {
	case r.entered <- struct{}{}:
	default: // one line is due already, and it will be about this phase
	}
}

// sessionFailed notes a failure for the phases to come. A session that failed before it streamed or loaded does not count, because it was
// never taken for work.
func (r *Relay) sessionFailed() {
	if p := r.phase.Load().pipeline; p != nil {
		r.starts.failed, r.starts.furthest = true, max(r.starts.furthest, p.position())
	}
}

// measure writes a line about the relay and its slot every minute, whatever the relay does, until ctx ends. A relay without a line
// is dead or cut off. If only a relay that streams wrote lines, an alarm could not tell a standby or a load from a dead relay.
func (r *Relay) measure(ctx context.Context) {
	ticker := time.NewTicker(r.measureEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.entered:
		case <-ticker.C:
		}
		r.measureOnce(ctx)
	}
}

func (r *Relay) measureOnce(ctx context.Context) {
	p := r.phase.Load()
	slot, err := r.slotHealth(ctx, p.slot)
	if ctx.Err() != nil {
		return
	}
	level, attributes, metrics := slog.LevelInfo, []slog.Attr(nil), []emf.Metric{{Name: "streaming", Unit: emf.Count}}
	if err == nil {
		attributes, metrics = slotAttributes(slot), append(metrics, slotMetrics...)
	}
	streaming := 0
	if p.works() {
		streaming = 1
	}
	attributes = append(attributes, slog.String("state", p.state), slog.Int("streaming", streaming))
	if p.pipeline != nil {
		refused := p.pipeline.hindrance()
		attributes = append(attributes, slog.Bool("ready", refused == ""))
		if refused != "" {
			level = slog.LevelWarn
			attributes = append(attributes, slog.String("refused", refused))
		}
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // without a row there is no slot yet, and the first relay makes it
		level = slog.LevelWarn
		attributes = append(attributes, slog.String("error", err.Error()))
	}
	r.logMetrics(ctx, level, "slot", attributes, metrics...)
}

// slotHealth asks on a session of its own, because the streaming one takes no queries.
func (r *Relay) slotHealth(ctx context.Context, name string) (slot dbgen.SlotHealthRow, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.setupFor)
	defer cancel()
	conn, err := r.database.Connect(ctx, nil)
	if err != nil {
		return slot, fmt.Errorf("measuring the slot: connecting to PostgreSQL: %w", err)
	}
	defer closeConn(conn.PgConn())
	if slot, err = dbgen.New(conn).SlotHealth(ctx, name); err != nil {
		return slot, fmt.Errorf("measuring slot %s: %w", name, err)
	}
	if name != r.slot {
		return slot, nil // a load's slot goes with its session
	}
	return slot, r.lookAtPromotion(ctx, conn)
}

// slotAttributes returns the values of slotMetrics.
func slotAttributes(slot dbgen.SlotHealthRow) []slog.Attr {
	return []slog.Attr{slog.Int64("slot_lag_bytes", slot.Unconfirmed), slog.Int64("retained_wal_bytes", slot.Retained)}
}

var slotMetrics = []emf.Metric{{Name: "slot_lag_bytes", Unit: emf.Bytes}, {Name: "retained_wal_bytes", Unit: emf.Bytes}}
