package view

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
)

const (
	pollGap  = 200 * time.Millisecond // least time between two polls
	pollIdle = time.Second            // most time between two cheap polls
	// restTimes is how much longer the pause after a poll is than the poll, so that polls take 5 %
	// of one connection. pollMost bounds the pause. Otherwise one slow poll, such as the first one
	// after a restart, would leave the page with an old reading for long.
	restTimes        = 20
	pollMost         = 2 * time.Second
	statementTimeout = 2 * time.Second
	// beginTimeout is longer, because nothing begins again. Everything else may have been started just before, and be busy.
	beginTimeout = time.Minute
	// maxOpen is how long an open transaction can hold back which seconds are complete. An event that is committed later is not counted.
	maxOpen = 600 // seconds
)

// poller asks the database and the queues. It feeds the watch's tally with what was committed, and keeps the rest for the page.
type poller struct {
	path  *local.Path
	watch *Watch

	mu   sync.Mutex
	last found

	// Only the goroutine that polls uses these.
	carsBefore   int64 // rows of table cars at the start
	uncounted    int64 // those of carsBefore that carstats has not counted yet
	completeCars int64 // created in complete seconds
	asked        time.Time
	started      int64 // when the server was started, as it says
	marker       *marker
	queuesAsked  time.Time
	emptyAt      int64 // entries on the bus when the subscriber's queue was found empty, -1 if it was not empty
}

// found is what the polls have found.
type found struct {
	begun, ended  int // polls
	answers       bool
	read          time.Time // beginning of the latest answered poll; the fields below are as of then
	flow          flow      // at that moment
	emptyAt       int64     // entries on the bus when, before the cars were counted, the subscriber's queue was empty; -1 if it was not
	problem       string
	cars, counted int64 // since the view's start
	slot          *slotState
	held          held
	open          int     // transactions
	rate          float64 // of commits, between the last two polls
	restarts      int     // of the server
	depths        local.Depths
}

// found returns what the polls have found so far.
func (p *poller) found() found {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *poller) note(change func(*found)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.last)
}

// held are the events that the subscriber holds until an earlier version of their car comes.
type held struct {
	state heldState
	ids   map[uuid.UUID]bool // of heldNamed of them
}

// heldState is held as /live has it.
type heldState struct {
	Events int64  `json:"events"`
	Since  string `json:"since"` // of the one that is held for longest; "" for none
}

// slotState is the relay's slot as /live has it.
type slotState struct {
	Name          string `json:"name"`
	Exists        bool   `json:"exists"`
	Active        bool   `json:"active"`
	ConfirmedLSN  string `json:"confirmedLsn"`
	CurrentLSN    string `json:"currentLsn"`
	LagBytes      int64  `json:"lagBytes"`
	RetainedBytes int64  `json:"retainedBytes"`
	WALStatus     string `json:"walStatus"`
}

// marker is a point in time that travels down the path after everything that was committed before
// it. After the marker is through, no part of the path holds an earlier event any more. An earlier
// event that has not arrived then is lost.
type marker struct {
	complete int64             // seconds before it have all their rows
	lsn      string            // after the commits of all of them
	ends     map[string]uint64 // the shards' ends, read after the slot confirmed lsn; nil before
}

// begin asks the database for its time, and counts from then on.
func (p *poller) begin(ctx context.Context) error {
	conn, err := connect(ctx, p.path.DatabaseURL, beginTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// Polls must be short and read little. The count of all cars is neither, so it is read here
	// once.
	if _, err := conn.Exec(ctx, "SET statement_timeout = '2min'; SET enable_seqscan = on"); err != nil {
		return err
	}
	var since time.Time
	var counted int64
	if err := conn.QueryRow(ctx, "SELECT now(), "+domain.Count+", "+domain.Counted).Scan(&since, &p.carsBefore, &counted); err != nil {
		return err
	}
	p.uncounted = max(0, p.carsBefore-counted)
	p.watch.tally.Begin(since)
	return nil
}

// run polls until ctx ends. It runs one statement at a time on one connection, so that it holds
// nothing back.
func (p *poller) run(ctx context.Context) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		p.note(func(f *found) { f.begun++ })
		var took time.Duration // of a poll that was answered
		var err error
		p.askQueues(ctx) // before the cars are counted (found.emptyAt)
		if conn == nil {
			conn, err = connect(ctx, p.path.DatabaseURL, statementTimeout)
		}
		if err == nil {
			began := time.Now()
			if err = p.ask(ctx, conn); err == nil {
				took = time.Since(began)
			}
		}
		if err != nil && conn != nil && ctx.Err() == nil {
			_ = conn.Close(ctx)
			conn = nil
		}
		if err != nil {
			p.asked = time.Time{}
		}
		p.note(func(f *found) {
			f.ended, f.answers, f.problem = f.begun, err == nil, ""
			if err != nil {
				f.slot, f.rate = nil, 0
				f.problem = "The database does not answer: " + err.Error()
			}
		})
		p.rest(ctx, took)
	}
}

// rest waits for a commit, and for as long as the cost of the last poll demands.
func (p *poller) rest(ctx context.Context, took time.Duration) {
	sleep(ctx, pause(took))
	select {
	case <-ctx.Done():
	case <-p.watch.wake:
	case <-time.After(pollIdle - pollGap):
	}
}

// pause is the shortest time from a poll to the next one.
func pause(took time.Duration) time.Duration { return max(pollGap, min(restTimes*took, pollMost)) }

// next waits for a poll that begins after the call, and returns what was found. If the database
// does not answer in time, it returns what was found before.
func (p *poller) next(ctx context.Context) found {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for want := p.found().begun + 1; ; {
		p.watch.pollSoon()
		if f := p.found(); f.ended >= want || ctx.Err() != nil {
			return f
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// sleep ends early with ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func connect(ctx context.Context, databaseURL string, timeout time.Duration) (*pgx.Conn, error) {
	config, err := pgsession.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = timeout
	config.RuntimeParams["application_name"] = "live-view"
	config.RuntimeParams["default_transaction_read_only"] = "on"
	// A plan made for any second, or for a table without statistics, would read the whole table.
	config.RuntimeParams["plan_cache_mode"], config.RuntimeParams["enable_seqscan"] = "force_custom_plan", "off"
	config.RuntimeParams["statement_timeout"] = fmt.Sprint(statementTimeout.Milliseconds())
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// selectHorizon finds the second before which every row of outbox is visible. created_at is the
// beginning of the row's transaction, so it is the beginning of the oldest open transaction. One
// second less is taken, because a transaction becomes visible a moment after it has begun.
const selectHorizon = `
SELECT floor(extract(epoch FROM least(now(), coalesce(min(xact_start), now()))))::bigint - 1,
    count(*)::integer,
    floor(extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint,
    pg_current_wal_insert_lsn()::text
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL`

const selectRows = `
SELECT floor(extract(epoch FROM created_at))::bigint, count(*),
    count(*) FILTER (WHERE aggregate_type = '` + domain.AggregateType + `' AND event_type = '` + domain.Created + `') - count(*) FILTER (WHERE aggregate_type = '` + domain.AggregateType + `' AND event_type = '` + domain.Deleted + `')
FROM outbox WHERE created_at >= $1 GROUP BY 1`

const selectNewest = `
SELECT id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at
FROM outbox WHERE created_at >= $1 ORDER BY created_at DESC LIMIT 40`

const selectSlot = `
SELECT s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.confirmed_flush_lsn::text, ''), pg_current_wal_lsn()::text,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::bigint,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint,
    coalesce(s.wal_status, ''), coalesce(s.confirmed_flush_lsn >= $2::text::pg_lsn, false)
FROM (SELECT) AS one LEFT JOIN pg_replication_slots AS s ON s.slot_name = $1`

// heldNamed bounds how many held events one poll reads.
const heldNamed = 1000

const selectHeld = "SELECT count(*), min(held_at), ARRAY(SELECT event_id FROM inbox_held LIMIT $1) FROM inbox_held"

// ask is one poll.
func (p *poller) ask(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*statementTimeout)
	defer cancel()
	tally := p.watch.tally
	began := time.Now()
	// This is read before the rows are counted. An event is committed before it is anywhere else,
	// so that no station can be ahead of ②.
	passed := p.watch.traffic.flow(began)
	from, lsn := tally.Uncounted(), "0/0"
	if p.marker != nil {
		lsn = p.marker.lsn
	}
	var horizon, started, counted int64
	var open int
	var insertLSN string
	slot := &slotState{Name: p.path.Slot()}
	confirmed := false
	rows, cars := map[int64]int64{}, map[int64]int64{}
	var newest []dbgen.Outbox
	reads := &pgx.Batch{}
	reads.Queue(selectHorizon).QueryRow(func(row pgx.Row) error { return row.Scan(&horizon, &open, &started, &insertLSN) })
	reads.Queue(selectRows, from).Query(func(found pgx.Rows) error {
		var at, n, more int64
		_, err := pgx.ForEachRow(found, []any{&at, &n, &more}, func() error {
			rows[at], cars[at] = n, more
			return nil
		})
		return err
	})
	reads.Queue(selectNewest, from).Query(func(found pgx.Rows) (err error) {
		newest, err = pgx.CollectRows(found, pgx.RowToStructByPos[dbgen.Outbox])
		return err
	})
	reads.Queue(selectSlot, slot.Name, lsn).QueryRow(func(row pgx.Row) error {
		return row.Scan(&slot.Exists, &slot.Active, &slot.ConfirmedLSN, &slot.CurrentLSN, &slot.LagBytes, &slot.RetainedBytes, &slot.WALStatus, &confirmed)
	})
	reads.Queue("SELECT " + domain.Counted).QueryRow(func(row pgx.Row) error { return row.Scan(&counted) })
	holding := held{ids: map[uuid.UUID]bool{}}
	reads.Queue(selectHeld, heldNamed).QueryRow(func(row pgx.Row) error {
		var since *time.Time
		var ids []uuid.UUID
		if err := row.Scan(&holding.state.Events, &since, &ids); err != nil {
			return err
		}
		if since != nil {
			holding.state.Since = stamp(*since)
		}
		for _, id := range ids {
			holding.ids[id] = true
		}
		return nil
	})
	if err := conn.SendBatch(ctx, reads).Close(); err != nil {
		return err
	}

	now := time.Now()
	before := tally.Counts().Committed
	tally.Committed(rows, max(horizon, now.Unix()-maxOpen))
	p.watch.series.commits(rows, now)
	slices.Reverse(newest)
	p.watch.recent.committed(newest)
	p.follow(confirmed, insertLSN)

	created := p.completeCars // since the start
	for at, n := range cars {
		created += n
		if at < tally.Complete() {
			p.completeCars += n
		}
	}
	// carstats may not have counted cars of an earlier run yet, which do not count here. They are
	// at most as many as it was ever behind.
	behind := p.carsBefore + created - counted
	p.uncounted = max(0, min(p.uncounted, behind))
	rate := 0.0
	if since := now.Sub(p.asked); !p.asked.IsZero() && since > 0 {
		rate = math.Round(float64(max(0, tally.Counts().Committed-before))*10/since.Seconds()) / 10
	}
	restarted := p.started != 0 && started != p.started
	p.asked, p.started = now, started
	p.note(func(f *found) {
		f.cars, f.counted, f.slot, f.open, f.rate = created, created-(behind-p.uncounted), slot, open, rate
		f.read, f.flow, f.emptyAt, f.held = began, passed, p.emptyAt, holding
		if restarted {
			f.restarts++
		}
	})
	return nil
}

// follow moves the marker on, and sets a new one after it is through.
func (p *poller) follow(confirmed bool, insertLSN string) {
	m, shards := p.marker, p.watch.shards
	switch {
	case m == nil:
		p.marker = &marker{complete: p.watch.tally.Complete(), lsn: insertLSN}
		return
	case m.ends == nil && confirmed:
		m.ends = shards.ends()
	}
	// The end of an external stream is not known, so no event on it is called lost.
	if m.ends == nil || p.path.CanBreak(local.Kinesis) != nil || !shards.readTo(m.ends) {
		return
	}
	p.watch.tally.Passed(m.complete)
	p.marker = nil
}

// askQueues asks once a second, and whenever something was parked.
func (p *poller) askQueues(ctx context.Context) {
	if !p.watch.parkedSince() && time.Since(p.queuesAsked) <= pollIdle*9/10 {
		return
	}
	p.queuesAsked = time.Now()
	before := p.watch.traffic.flow(p.queuesAsked)
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	depths, err := p.path.Depths(ctx)
	p.emptyAt = -1
	// The bus delivers to the queue before it answers, so an event that is in no batch has been
	// delivered.
	if err == nil && depths.Subscriber == 0 && before.inBatches == 0 && p.path.CanBreak(local.EventBridge) == nil {
		p.emptyAt = before.published.total
	}
	if err != nil {
		return // the page keeps the last known depth of a queue that does not answer
	}
	p.note(func(f *found) { f.depths = depths })
}
