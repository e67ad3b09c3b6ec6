package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/local"
)

// station is one of the six stations of the path as /live has it.
type station struct {
	Hop      int      `json:"hop"`
	Rate     float64  `json:"rate"`     // a second, over the last two: requests, commits, records, entries
	InFlight int      `json:"inFlight"` // begun, and not answered
	Backlog  int      `json:"backlog"`  // waiting in front of the station behind
	OldestMs int64    `json:"oldestMs"` // age of what has waited longest
	Restarts int      `json:"restarts"`
	Total    int64    `json:"total"`
	Note     string   `json:"note"`
	Faults   []string `json:"faults"` // names of the switches that are on here
}

// totals are counts of the database, the bus's journal and the queues. They are not of this process's life: see ledger.
type totals struct {
	Cars       int64 `json:"cars"`    // rows of table cars
	Counted    int64 `json:"counted"` // carstats' total, which is to be the same
	Committed  int64 `json:"committed"`
	OnBus      int64 `json:"onBus"` // of the committed
	OnTheWay   int64 `json:"onTheWay"`
	Lost       int64 `json:"lost"`       // committed, not on the bus, not parked, and nothing upstream of the bus holds it any more
	Duplicates int64 `json:"duplicates"` // entries on the bus beyond the first of their event, in as far as the journal goes back
	Suppressed int64 `json:"suppressed"` // deliveries that the subscriber did not count again
	Parked     int64 `json:"parked"`     // records in the failure queue
	OutOfOrder int64 `json:"outOfOrder"`
}

// live is the model of the path. What the observer tells and what the polls find comes together here.
type live struct {
	began time.Time

	mu      sync.Mutex
	stack   *local.Path
	log     *slog.Logger
	changed uint64 // counts what has come in
	ledger  ledger
	recent  recent
	series  series
	tables  tables
	depths  local.Depths
	shards  map[string]*shard

	requests  map[int64]time.Time // under way, by their beginnings
	answered  meter
	refused   meter // 5xx
	stored    meter
	consumed  meter
	published meter
	failures  meter // entries that the bus did not accept
	again     meter // records that the consumer got again
	putting   int
	batches   map[string]local.Batch  // invocations under way, without their records
	inBatches int                     // records in them
	commitOf  map[uuid.UUID]time.Time // of the events in them
	newest    time.Time               // commit of the newest event on the stream
	suppress  suppressed

	wake chan struct{} // something was committed: poll soon
}

// shard is how far a shard is written and read.
type shard struct {
	end, done uint64
	sequence  string // of done
	marks     []mark // arrivals, one per markGap
}

// mark says that record index, and none before it, had arrived at the time.
type mark struct {
	index uint64
	at    time.Time
}

const (
	markGap  = 250 * time.Millisecond
	maxMarks = 8192
)

// suppressed is the one total that is in no table: it is kept in a file.
type suppressed struct {
	Suppressed int64 `json:"suppressed"`
	saved      int64
	path       string
}

func newLive() *live {
	return &live{
		began: time.Now(), ledger: newLedger(), recent: newRecent(), shards: map[string]*shard{}, requests: map[int64]time.Time{},
		batches: map[string]local.Batch{}, commitOf: map[uuid.UUID]time.Time{}, wake: make(chan struct{}, 1),
	}
}

// attach gives the model its stack, from which polls read.
func (l *live) attach(s *local.Path, log *slog.Logger) {
	positions, err := s.Positions()
	if err != nil {
		log.Warn("live view: the shards' positions are those since the start", "error", err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stack, l.log = s, log
	for _, p := range positions {
		sh := l.shard(p.Shard)
		sh.end, sh.done = max(sh.end, p.End), max(sh.done, p.Done)
		if sh.sequence == "" {
			sh.sequence = p.SequenceNumber
		}
		if len(sh.marks) == 0 && sh.done < sh.end {
			sh.marks = []mark{{sh.done + 1, l.began}} // of an earlier run: older than that
		}
	}
	l.suppress.path = filepath.Join(s.Dir(), "view.json")
	content, err := os.ReadFile(l.suppress.path)
	if err == nil {
		var before suppressed
		if json.Unmarshal(content, &before) == nil {
			l.suppress.Suppressed += before.Suppressed
			l.suppress.saved = before.Suppressed
		}
	}
}

// save keeps what is in no table.
func (l *live) save() error {
	l.mu.Lock()
	s := l.suppress
	l.mu.Unlock()
	if s.Suppressed == s.saved || s.path == "" {
		return nil
	}
	content, err := json.Marshal(s)
	if err == nil {
		err = errors.Join(os.WriteFile(s.path+".new", content, 0o600), os.Rename(s.path+".new", s.path))
	}
	if err != nil {
		return fmt.Errorf("keeping the count of suppressed duplicates: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suppress.saved = s.Suppressed
	return nil
}

func (l *live) close() error { return l.save() }

func (l *live) shard(id string) *shard {
	if l.shards[id] == nil {
		l.shards[id] = &shard{}
	}
	return l.shards[id]
}

// note runs change under the lock.
func (l *live) note(change func(now time.Time)) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed++
	change(now)
}

// totals are as of now, but for what is counted in the database: that is as of the last poll.
func (l *live) totals() totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sums()
}

func (l *live) sums() totals {
	committed, missing, lost, parked := l.ledger.sums()
	return totals{
		Cars: l.tables.cars, Counted: l.tables.counted, Committed: committed, OnBus: max(0, committed-missing-parked), OnTheWay: missing - lost, Lost: lost,
		Duplicates: l.ledger.duplicates, Suppressed: l.suppress.Suppressed, Parked: int64(l.depths.Failures), OutOfOrder: l.ledger.outOfOrder,
	}
}

// fresh is totals behind a poll that has begun after the call, or with what there is when the database does not answer.
func (l *live) fresh(ctx context.Context) totals {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	l.mu.Lock()
	want := l.tables.begun + 1
	l.mu.Unlock()
	for {
		select {
		case l.wake <- struct{}{}:
		default:
		}
		l.mu.Lock()
		done, sums := l.tables.ended >= want, l.sums()
		l.mu.Unlock()
		if done || ctx.Err() != nil {
			return sums
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func millis(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/10) / 100 }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// newestFirst sorts the events that were seen last by their commits.
func (l *live) newestFirst() []eventState {
	last := l.recent.order[max(0, len(l.recent.order)-shown-shown/2):]
	chosen := slices.Clone(last)
	slices.SortStableFunc(chosen, func(a, b *event) int { return b.committed.Compare(a.committed) })
	all := []eventState{}
	for _, e := range chosen[:min(shown, len(chosen))] {
		all = append(all, e.state())
	}
	return all
}
