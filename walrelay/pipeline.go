package walrelay

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pglogrepl"

	"rds-outbox-demo/internal/congestion"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// Bounds of what the pipeline holds. They bound the relay's memory, whatever the backlog or the size of a
// transaction. The reader stops reading at either bound, and goes on when the pipeline is below both.
const (
	maxPendingRecords = 10_000
	maxPendingBytes   = 16 << 20
)

// reportedRows is after how many confirmed rows the server hears the position, if the time for it
// has not come before. These rows come again after a kill.
const reportedRows = 500

// stuckAfter is how long records wait without any that Kinesis accepts, until the relay no longer counts as one that works. On the
// slowest link that still works a call takes nearly as long.
const stuckAfter = maxPutTimeout

// pipeline holds the records between the WAL and Kinesis, in lanes by partition key, and knows how far the WAL is confirmed.
//
// Records go in in stream order (add, commit). Senders take batches out (take) and report Kinesis's answers
// (settle). While the head of a lane is unanswered or waits for its retry, the records after it stay. So a
// partition key never has two unanswered records, and a failed record is never overtaken by its successor.
// The obvious retry of "only what failed" allows that.
type pipeline struct {
	mu          sync.Mutex
	work        *sync.Cond    // a lane became ready, or the pipeline closed
	progress    chan struct{} // capacity 1: records were settled, or a sender failed
	lanes       map[string]*lane
	ready       []*lane // lanes whose head may be sent, oldest first
	records     int
	bytes       int
	window      *congestion.Window // in bytes
	unanswered  int                // bytes that were taken and not settled
	refused     string             // the code with which Kinesis refuses the relay, or ""
	accepted    time.Time          // when Kinesis last accepted a record, or the first of those that wait came
	first, last *transaction       // received and not confirmed, in stream order. The last may be half received.
	confirmed   pglogrepl.LSN
	unreported  int           // confirmed rows since many was last filled
	many        chan struct{} // capacity 1: reportedRows rows were confirmed
	closed      bool
	err         error
}

type lane struct {
	key     string
	records []*pending // the head is the one that is sent
}

// pending is one record on its way to Kinesis.
type pending struct {
	key         string
	data        []byte
	traceID     string // "" when the event has none
	event       eventName
	transaction *transaction // nil for rows of the initial load
	attempts    int
}

func (r *pending) size() int { return len(r.key) + len(r.data) }

func sizeOf(batch []*pending) (bytes int) {
	for _, record := range batch {
		bytes += record.size()
	}
	return bytes
}

// transaction is a link of the pipeline's list. Only a transaction that waits for an answer has a
// link of its own. Accepted ones after it are merged into it, because they can be confirmed only
// with it. Otherwise they would pile up for as long as one record is refused.
type transaction struct {
	previous, next *transaction
	end            pglogrepl.LSN // set at the commit. The LSN is its own or that of the latest transaction merged into it.
	records        int           // of it and of those that were merged into it
	unaccepted     int           // records that Kinesis has not accepted yet
	committed      bool
}

// newPending makes the stream's record of an outbox record. tx is nil for a row of the initial load.
func newPending(record outbox.Record, tx *transaction) (*pending, error) {
	// Room for the members around the payload, and for its quotes, which are escaped. A buffer that grows
	// from nothing would be copied eight times.
	data, err := record.AppendJSON(make([]byte, 0, 768+len(record.Row.EventData)*5/4))
	if err != nil {
		return nil, &decodeError{err}
	}
	traceID := outbox.TraceID(aws.ToString(record.Row.Traceparent))
	event := eventName{record.Row.AggregateType, record.Row.AggregateVersion, record.Row.ID}
	return &pending{key: record.Row.AggregateID, data: data, traceID: traceID, event: event, transaction: tx}, nil
}

func newPipeline() *pipeline {
	p := &pipeline{lanes: map[string]*lane{}, progress: make(chan struct{}, 1), many: make(chan struct{}, 1), window: newWindow()}
	p.work = sync.NewCond(&p.mu)
	return p
}

// add appends records to their lanes. It never blocks, so the caller checks full first. No record is sent before all of them are in their
// lanes, so the first call of a page is as full as it can be.
func (p *pipeline) add(records ...*pending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, record := range records {
		if tx := record.transaction; tx != nil {
			tx.records++
			tx.unaccepted++
		}
		if p.records == 0 {
			p.accepted = time.Now()
		}
		p.records++
		p.bytes += record.size()
		l := p.lanes[record.key]
		if l == nil {
			l = &lane{key: record.key}
			p.lanes[record.key] = l
			p.ready = append(p.ready, l)
			p.work.Signal()
		}
		l.records = append(l.records, record)
	}
}

// begin opens the transaction that the following records belong to.
func (p *pipeline) begin() *transaction {
	p.mu.Lock()
	defer p.mu.Unlock()
	tx := &transaction{previous: p.last}
	if p.last == nil {
		p.first = tx
	} else {
		p.last.next = tx
	}
	p.last = tx
	return tx
}

// commit marks tx, the newest transaction, as received whole. end is the LSN after its commit record.
func (p *pipeline) commit(tx *transaction, end pglogrepl.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tx.end, tx.committed = end, true
	p.merge(tx)
	p.advance()
}

// merge gives tx's end to the transaction before it, if nothing of tx is unaccepted. The
// transaction before it is received whole.
func (p *pipeline) merge(tx *transaction) {
	if !tx.committed || tx.unaccepted > 0 || tx.previous == nil {
		return
	}
	tx.previous.end = tx.end
	tx.previous.records += tx.records
	p.unlink(tx)
}

func (p *pipeline) unlink(tx *transaction) {
	if tx.previous == nil {
		p.first = tx.next
	} else {
		tx.previous.next = tx.next
	}
	if tx.next == nil {
		p.last = tx.previous
	} else {
		tx.next.previous = tx.previous
	}
}

// keepalive confirms a position of the WAL behind which nothing of ours was sent, if nothing before it is on its way.
func (p *pipeline) keepalive(lsn pglogrepl.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil && lsn > p.confirmed {
		p.confirmed = lsn
	}
}

// advance is the one place where a commit is confirmed. It confirms a commit only after Kinesis has accepted
// its records and those of every commit before it.
func (p *pipeline) advance() {
	for first := p.first; first != nil; first = p.first {
		if !first.committed || first.unaccepted > 0 && !sabotage.On(sabotage.ConfirmBeforePut) {
			return
		}
		p.confirmed = first.end
		p.countConfirmed(first.records)
		p.unlink(first)
	}
}

// countConfirmed lets the watcher know of every reportedRows rows.
func (p *pipeline) countConfirmed(rows int) {
	p.unreported += rows
	if p.unreported >= reportedRows {
		p.unreported = 0
		notify(p.many)
	}
}

// position returns the LSN up to which everything was accepted; 0 before the first commit.
func (p *pipeline) position() pglogrepl.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.confirmed
}

func (p *pipeline) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records >= maxPendingRecords || p.bytes >= maxPendingBytes
}

func (p *pipeline) empty() bool { return p.size() == 0 }

// size returns how many records wait or are unanswered.
func (p *pipeline) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records
}

// take waits for lanes that are ready and for room in the window. It returns the heads of as many
// lanes as fit into one call, so at most one record per key. It returns nil once the pipeline is
// closed.
func (p *pipeline) take(maxRecords, maxBytes int) []*pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && (len(p.ready) == 0 || !p.window.Room(p.unanswered, p.ready[0].records[0].size())) {
		p.work.Wait()
	}
	if p.closed {
		return nil
	}
	maxBytes = min(maxBytes, p.window.Call(), max(0, p.window.Size()-p.unanswered))
	var batch []*pending
	bytes := 0
	for len(batch) < maxRecords && len(p.ready) > 0 {
		head := p.ready[0].records[0]
		if len(batch) > 0 && bytes+head.size() > maxBytes {
			break
		}
		bytes += head.size()
		batch = append(batch, head)
		p.ready = p.ready[1:]
	}
	p.unanswered += bytes
	return batch
}

// unansweredBytes returns how many bytes are in calls that are under way.
func (p *pipeline) unansweredBytes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unanswered
}

// settle takes Kinesis's answer. accepted[i] belongs to batch[i]. A lane whose head failed is ready again
// after backoff. The other lanes go on at once.
func (p *pipeline) settle(batch []*pending, accepted []bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unanswered -= sizeOf(batch)
	if slices.Contains(accepted, true) {
		p.accepted = time.Now()
	}
	for i, record := range batch {
		l := p.lanes[record.key]
		if !accepted[i] {
			record.attempts++
			if sabotage.On(sabotage.RetryOnlyTheFailed) {
				l.records = append(l.records[1:], record)
			}
			time.AfterFunc(backoff(record.attempts), func() { p.retry(l) })
			continue
		}
		l.records[0] = nil // else the slice's array keeps it
		l.records = l.records[1:]
		p.records--
		p.bytes -= record.size()
		if tx := record.transaction; tx != nil {
			tx.unaccepted--
			p.merge(tx)
		}
		if len(l.records) == 0 {
			delete(p.lanes, record.key)
		} else {
			p.ready = append(p.ready, l)
		}
	}
	p.advance()
	p.work.Broadcast()
	p.signal()
}

func (p *pipeline) retry(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, l)
	p.work.Signal()
}

// close ends take for every sender. If Kinesis refused for good, err says why. The first reason stays.
func (p *pipeline) close(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed, p.err = true, err
	}
	p.work.Broadcast()
	p.signal()
}

// setRefusal notes the code with which Kinesis refuses the relay, or "" after a call that succeeded.
func (p *pipeline) setRefusal(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = code
}

// hindrance says why Kinesis does not take the records that wait, and is "" while it does. A network that leads nowhere has no code, and
// neither has a service that answers nothing but InternalFailure.
func (p *pipeline) hindrance() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused != "" {
		return "Kinesis answers " + p.refused
	}
	if without := time.Since(p.accepted); p.records > 0 && without >= stuckAfter {
		return fmt.Sprintf("Kinesis has accepted nothing for %s (%d records wait)", without.Round(time.Second), p.records)
	}
	return ""
}

// failure returns why the senders gave up, or nil.
func (p *pipeline) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pipeline) signal() { notify(p.progress) }

// notify fills a channel of capacity 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
