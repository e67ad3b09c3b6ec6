package view

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/local"
)

const (
	pollGap  = 200 * time.Millisecond // between two polls at least
	pollIdle = time.Second            // and at most, if they are cheap
	// restTimes is how much longer than a poll the pause behind it is: it takes 5 % of one connection at most. A recount reads whole tables.
	restTimes        = 20
	recountRestTimes = 100
	recountGap       = 15 * time.Second
	statementTimeout = 2 * time.Second
	baselineTimeout  = 2 * time.Minute
	// maxOpen is how long an open transaction can hold back which seconds are final. What commits later is found by a recount.
	maxOpen = 600 // seconds
)

// tables is what the polls have found in the database. Guarded by live.mu.
type tables struct {
	begun, ended  int // polls
	answers       bool
	problem       string
	cars, counted int64
	carsBefore    int64 // those of the seconds before ledger.final
	slot          *slotState
	open          int // transactions
	asked         time.Time
	rate          float64 // of commits, between the last two polls
	started       int64
	restarts      int
	marker        *marker
	recounted     time.Time
	recountTook   time.Duration
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

// marker is a point in time that travels down the path behind everything that was committed before it. Once it is through, what was
// committed before and has not arrived is lost: nothing holds it any more.
type marker struct {
	final int64             // seconds before it have all their rows
	lsn   string            // behind the commits of all of them
	ends  map[string]uint64 // once the slot has confirmed lsn: the shards' ends, behind all of their records
}

// poll asks the database until ctx ends. One statement at a time on one connection: it holds nothing back.
func (l *live) poll(ctx context.Context) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	queues := time.Time{}
	for ctx.Err() == nil {
		l.mu.Lock()
		l.tables.begun++
		l.mu.Unlock()
		var took time.Duration
		var err error
		if conn == nil {
			conn, err = connect(ctx, l.stack.DatabaseURL)
		}
		if err == nil {
			took, err = l.ask(ctx, conn)
		}
		if err != nil && conn != nil && ctx.Err() == nil {
			_ = conn.Close(ctx)
			conn = nil
		}
		if time.Since(queues) > pollIdle*9/10 {
			queues = time.Now()
			l.askQueues(ctx)
		}
		l.note(func(time.Time) {
			l.tables.ended = l.tables.begun
			l.tables.answers = err == nil
			l.tables.problem = ""
			if err != nil {
				l.tables.slot, l.tables.rate, l.tables.asked = nil, 0, time.Time{}
				l.tables.problem = "The database does not answer: " + err.Error()
			}
		})
		if err := l.save(); err != nil {
			l.log.Warn("live view", "error", err.Error())
		}
		l.rest(ctx, took)
	}
}

// rest waits for something to be committed, and for as long as what a poll costs allows.
func (l *live) rest(ctx context.Context, took time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(max(pollGap, min(restTimes*took, 30*time.Second))):
	}
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-time.After(pollIdle - pollGap):
	}
}

func connect(ctx context.Context, databaseURL string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, errors.New("the database's URL is not valid") // the error would repeat it, with the password
	}
	config.ConnectTimeout = statementTimeout
	config.RuntimeParams["application_name"] = "live-view"
	config.RuntimeParams["default_transaction_read_only"] = "on"
	// A plan that is made for any second, or for a table of which nothing is known yet, would read all of it.
	config.RuntimeParams["plan_cache_mode"], config.RuntimeParams["enable_seqscan"] = "force_custom_plan", "off"
	config.RuntimeParams["statement_timeout"] = milliseconds(statementTimeout)
	ctx, cancel := context.WithTimeout(ctx, 2*statementTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// selectHorizon finds the second before which every row of outbox is there: created_at is the beginning of its transaction, and no
// transaction is open that began before. A second is taken off, since a transaction shows a moment after it has begun.
const selectHorizon = `
SELECT floor(extract(epoch FROM least(now(), coalesce(min(xact_start), now()))))::bigint - 1,
    count(*)::integer,
    floor(extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint,
    pg_current_wal_insert_lsn()::text
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL`

const selectRows = `
SELECT floor(extract(epoch FROM created_at))::bigint, count(*),
    count(*) FILTER (WHERE aggregate_type = 'Car' AND event_type = 'CarCreated') - count(*) FILTER (WHERE aggregate_type = 'Car' AND event_type = 'CarDeleted')
FROM outbox WHERE created_at >= to_timestamp($1) GROUP BY 1`

const selectNewest = `
SELECT id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at
FROM outbox WHERE created_at >= to_timestamp($1) ORDER BY created_at DESC LIMIT 40`

const selectSlot = `
SELECT s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.confirmed_flush_lsn::text, ''), pg_current_wal_lsn()::text,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::bigint,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint,
    coalesce(s.wal_status, ''), coalesce(s.confirmed_flush_lsn >= $2::text::pg_lsn, false)
FROM (SELECT) AS one LEFT JOIN pg_replication_slots AS s ON s.slot_name = $1`

// ask is one poll. took leaves out what reads whole tables, which has a rest of its own.
func (l *live) ask(ctx context.Context, conn *pgx.Conn) (took time.Duration, err error) {
	if err := l.askBaseline(ctx, conn); err != nil {
		return 0, err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*statementTimeout)
	defer cancel()
	l.mu.Lock()
	from, marked := l.ledger.final, l.tables.marker
	l.mu.Unlock()
	lsn := "0/0"
	if marked != nil {
		lsn = marked.lsn
	}

	var horizon, started, counted int64
	var open int
	var insertLSN string
	slot := &slotState{Name: l.stack.Slot()}
	confirmed := false
	rows, cars := map[int64]int64{}, map[int64]int64{}
	var newest []dbgen.Outbox
	batch := &pgx.Batch{}
	batch.Queue(selectHorizon).QueryRow(func(row pgx.Row) error { return row.Scan(&horizon, &open, &started, &insertLSN) })
	batch.Queue(selectRows, float64(from)).Query(func(found pgx.Rows) error {
		var at, n, more int64
		_, err := pgx.ForEachRow(found, []any{&at, &n, &more}, func() error {
			rows[at], cars[at] = n, more
			return nil
		})
		return err
	})
	batch.Queue(selectNewest, float64(from)).Query(func(found pgx.Rows) (err error) {
		newest, err = pgx.CollectRows(found, pgx.RowToStructByPos[dbgen.Outbox])
		return err
	})
	batch.Queue(selectSlot, slot.Name, lsn).QueryRow(func(row pgx.Row) error {
		return row.Scan(&slot.Exists, &slot.Active, &slot.ConfirmedLSN, &slot.CurrentLSN, &slot.LagBytes, &slot.RetainedBytes, &slot.WALStatus, &confirmed)
	})
	batch.Queue("SELECT coalesce(sum(cars), 0)::bigint FROM car_stats").QueryRow(func(row pgx.Row) error { return row.Scan(&counted) })
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return 0, err
	}
	took = time.Since(began)
	l.note(func(now time.Time) {
		t := &l.tables
		before, _, _, _ := l.ledger.sums()
		final := max(horizon, now.Unix()-maxOpen, from)
		l.ledger.counted(rows, final)
		after, _, _, _ := l.ledger.sums()
		if since := now.Sub(t.asked); !t.asked.IsZero() && since > 0 {
			t.rate = math.Round(float64(max(0, after-before))*10/since.Seconds()) / 10
		}
		t.asked = now
		l.series.commits(rows, now)
		t.cars = t.carsBefore
		for at, n := range cars {
			t.cars += n
			if at < final {
				t.carsBefore += n
			}
		}
		t.counted, t.slot, t.open = counted, slot, open
		if t.started != 0 && started != t.started {
			t.restarts++
		}
		t.started = started
		for i := len(newest) - 1; i >= 0; i-- {
			if row := newest[i]; !l.ledger.knows(short(row.ID), row.CreatedAt.Unix()) {
				l.recent.keep(row, time.Time{})
			}
		}
		l.follow(confirmed, insertLSN)
	})
	return took, l.recount(ctx, conn)
}

// follow moves the marker on, and sets a new one when it is through.
func (l *live) follow(confirmed bool, insertLSN string) {
	t := &l.tables
	m := t.marker
	switch {
	case m == nil:
		t.marker = &marker{final: l.ledger.final, lsn: insertLSN}
		return
	case m.ends == nil && confirmed:
		m.ends = map[string]uint64{}
		for id, sh := range l.shards {
			m.ends[id] = sh.end
		}
	}
	if m.ends == nil || l.stack.CanBreak(local.Kinesis) != nil {
		return // where a stream of the user's own ends nobody can tell: nothing is called lost then
	}
	for id, end := range m.ends {
		if l.shards[id].done < end {
			return
		}
	}
	l.ledger.passed = max(l.ledger.passed, m.final)
	t.marker = nil
}

// recount counts whole tables from time to time: rows that were purged, and rows that were written with a created_at of the past or by a
// transaction that was open for longer than maxOpen.
func (l *live) recount(ctx context.Context, conn *pgx.Conn) error {
	l.mu.Lock()
	final, due := l.ledger.final, time.Since(l.tables.recounted) > max(recountGap, recountRestTimes*l.tables.recountTook)
	l.mu.Unlock()
	if !due {
		return nil
	}
	began := time.Now()
	rows, cars, err := countRows(ctx, conn, final)
	took := time.Since(began)
	l.note(func(now time.Time) {
		l.tables.recounted, l.tables.recountTook = now, took
		if err != nil {
			l.tables.recountTook = 10 * time.Second // too large to be counted often
			return
		}
		l.tables.carsBefore = cars
		switch believed := l.ledger.below(); {
		case rows < believed: // purged
			l.ledger.settled -= believed - rows
		case rows > believed:
			l.ledger.restart()
		}
	})
	if ctx.Err() == nil && conn.IsClosed() {
		return err
	}
	return nil
}

// countRows counts the rows of outbox before a second, and the cars but for those of the seconds from it on. One statement is one snapshot.
func countRows(ctx context.Context, conn *pgx.Conn, final int64) (rows, cars int64, err error) {
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM outbox WHERE created_at < to_timestamp($1)),
			(SELECT count(*) FROM cars) - (
				SELECT count(*) FILTER (WHERE event_type = 'CarCreated') - count(*) FILTER (WHERE event_type = 'CarDeleted')
				FROM outbox WHERE aggregate_type = 'Car' AND created_at >= to_timestamp($1))`, float64(final)).Scan(&rows, &cars)
	return rows, cars, err
}

func (l *live) askQueues(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	depths, err := l.stack.Depths(ctx)
	if err != nil {
		return // a queue that is away is what the page shows of it: the last known depth
	}
	l.note(func(time.Time) { l.depths = depths })
}
