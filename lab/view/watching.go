package view

import (
	"encoding/json"
	"hash/fnv"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// observer is what the stack calls.
func (l *live) observer() *local.Observer {
	return &local.Observer{
		Requested: l.requested, Responded: l.responded, Stored: l.storedRecord, Invoked: l.invoked, Returned: l.returned, Putting: l.puttingEntries, Accepted: l.accepted,
		Put: l.put, Parked: l.parked, Delivered: l.delivered, Suppressed: l.suppressedDuplicates,
	}
}

func (l *live) requested(began time.Time) {
	l.note(func(time.Time) { l.requests[began.UnixNano()] = began })
}

func (l *live) responded(r local.Request) {
	l.note(func(now time.Time) {
		delete(l.requests, r.At.UnixNano())
		l.answered.add(now, 1)
		if r.Status >= 500 {
			l.refused.add(now, 1)
		}
		if r.Status < 300 && !r.Replayed {
			l.recent.requested(&r)
		}
	})
	if r.Status < 300 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *live) storedRecord(r awslocal.StreamRecord) {
	record, skip, err := outbox.ParseRecord(r.Data)
	l.note(func(now time.Time) {
		sh := l.shard(r.Shard)
		if n := len(sh.marks); n == 0 || sh.done >= sh.end || r.Arrival.Sub(sh.marks[n-1].at) >= markGap {
			sh.mark(r.Index, r.Arrival)
		}
		sh.end = max(sh.end, r.Index)
		l.stored.add(now, 1)
		if err != nil || skip != outbox.SkipNothing {
			return
		}
		if record.Commit.Time.After(l.newest) {
			l.newest = record.Commit.Time
		}
		e := l.see(record)
		if e != nil {
			// The consumer may have it before we are told.
			if i := slices.IndexFunc(e.stored, func(s awslocal.StreamRecord) bool { return s.SequenceNumber == r.SequenceNumber }); i >= 0 {
				e.stored[i] = r
				return
			}
			e.storedSum++
			if len(e.stored) < 2 {
				l.recent.grow(e, len(r.Data))
				e.stored = append(e.stored, r)
			}
		}
	})
}

func (s *shard) mark(index uint64, at time.Time) {
	if len(s.marks) >= maxMarks {
		for i := range maxMarks / 2 {
			s.marks[i] = s.marks[2*i]
		}
		s.marks = s.marks[:maxMarks/2]
	}
	s.marks = append(s.marks, mark{index, at})
}

// oldest is when the oldest record that is not done arrived, at most markGap too early; zero when there is none.
func (s *shard) oldest() time.Time {
	for len(s.marks) > 1 && s.marks[1].index <= s.done+1 {
		s.marks = s.marks[1:]
	}
	if s.done >= s.end || len(s.marks) == 0 {
		return time.Time{}
	}
	return s.marks[0].at
}

// see returns the event of a record on the stream; nil when it has long arrived, and is not of the latest.
func (l *live) see(record outbox.Record) *event {
	row := record.Row
	if l.recent.byID[row.ID] == nil && record.Replay == "" && l.ledger.knows(short(row.ID), row.CreatedAt.Unix()) {
		return nil
	}
	e := l.recent.keep(row, record.Commit.Time)
	if e.read.IsZero() {
		e.read, e.operation = record.Timestamp, record.Operation
	}
	if record.Replay != "" {
		e.replay = record.Replay
	}
	if !e.walKnown && !record.Commit.Time.IsZero() {
		e.walKnown, e.committed, e.position, e.xid = true, record.Commit.Time, record.Commit.StreamPosition, record.Commit.TransactionID
	}
	return e
}

func (l *live) invoked(b local.Batch) {
	l.note(func(now time.Time) {
		head := b
		head.Records = nil
		l.batches[b.Invocation] = head
		l.inBatches += len(b.Records)
		for place, r := range b.Records {
			if r.Event == nil {
				continue
			}
			if !r.Event.Commit.Time.IsZero() {
				l.commitOf[r.Event.Row.ID] = r.Event.Commit.Time
			}
			e := l.see(*r.Event)
			if e == nil {
				continue
			}
			if e.storedSum == 0 { // a stream of the user's own, or a record of an earlier run
				e.storedSum = 1
				l.recent.grow(e, len(r.Data))
				e.stored = []awslocal.StreamRecord{{
					Shard: b.Shard, SequenceNumber: r.SequenceNumber, Arrival: r.Arrival, PartitionKey: r.PartitionKey, Data: r.Data,
				}}
			}
			if e.invoked++; e.invoked > 1 {
				l.again.add(now, 1)
			}
			e.batches = appendTry(e.batches, try{batch: head, place: place + 1, of: len(b.Records)})
		}
	})
}

func (l *live) returned(b local.Batch) {
	l.note(func(now time.Time) {
		delete(l.batches, b.Invocation)
		l.inBatches -= len(b.Records)
		l.consumed.add(now, b.Failed)
		sh := l.shard(b.Shard)
		if b.Failed > 0 {
			last := b.Records[b.Failed-1].SequenceNumber
			if index, ok := awslocal.SequenceIndex(last); ok && index > sh.done {
				sh.done = index
			}
			sh.sequence = last
		}
		for place, r := range b.Records {
			if r.Event == nil {
				continue
			}
			delete(l.commitOf, r.Event.Row.ID)
			e := l.recent.byID[r.Event.Row.ID]
			if e == nil {
				continue
			}
			for i := range e.batches {
				if t := &e.batches[i]; t.batch.Invocation == b.Invocation {
					t.batch.Took = b.Took
					t.state = stateOf(b, place)
				}
			}
		}
	})
}

func stateOf(b local.Batch, place int) string {
	switch {
	case b.Err != nil:
		return "the invocation failed: " + b.Err.Error()
	case place < b.Failed:
		return "done"
	case place == b.Failed:
		return "failed: delivered again from here on"
	default:
		return "behind one that failed: delivered again"
	}
}

func (l *live) puttingEntries(entries int) { l.note(func(time.Time) { l.putting += entries }) }

func (l *live) put(p local.Put) {
	l.note(func(now time.Time) {
		l.putting -= len(p.Entries)
		for _, entry := range p.Entries {
			if entry.BusID == "" {
				l.failures.add(now, 1)
			}
			e := l.recent.byID[entry.EventID]
			if e == nil {
				continue
			}
			e.tried++
			e.puts = appendTry(e.puts, put{p.At, entry.BusID, entry.Code, entry.Message})
			e.lastCode = entry.Code
		}
	})
}

// accepted comes before the answer, and for an entry whose answer is lost, too.
func (l *live) accepted(b awslocal.BusEvent) {
	id, aggregate, version := identity(b.Detail)
	l.note(func(now time.Time) {
		l.published.add(now, 1)
		if id == uuid.Nil {
			return // not an event of ours
		}
		first := l.ledger.arrived(arrival{id: short(id), aggregate: aggregate, version: version, second: b.Time.Unix(), at: b.Accepted})
		if e := l.recent.byID[id]; e != nil {
			if e.copies++; e.accepted.ID == "" {
				l.recent.grow(e, len(b.Detail))
				e.accepted = b
			}
		}
		latency := time.Duration(0)
		if commit, ok := l.commitOf[id]; ok && first {
			latency = max(b.Accepted.Sub(commit), time.Microsecond) // two clocks
		}
		l.series.publish(now, latency)
	})
}

// identity reads an entry's Detail.
func identity(detail []byte) (id uuid.UUID, aggregate uint64, version int64) {
	var d struct {
		EventID                    uuid.UUID
		AggregateID, AggregateType string
		AggregateVersion           int64
	}
	if json.Unmarshal(detail, &d) != nil {
		return uuid.Nil, 0, 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(d.AggregateType + "\x00" + d.AggregateID))
	return d.EventID, h.Sum64(), d.AggregateVersion
}

func (l *live) parked(p cdcconsumer.ParkedRecord) {
	record, skip, err := outbox.ParseRecord(p.Data)
	isEvent := err == nil && skip == outbox.SkipNothing
	l.note(func(now time.Time) {
		l.depths.Failures++ // until the next poll
		if !isEvent {
			return
		}
		l.ledger.arrived(arrival{id: short(record.Row.ID), second: record.Row.CreatedAt.Unix(), at: now, parked: true})
		if e := l.recent.byID[record.Row.ID]; e != nil {
			e.parked = &parking{now, string(p.Reason), p.ErrorCode, p.ErrorMessage}
		}
	})
}

func (l *live) delivered(d local.Delivery) {
	ids := make([]uuid.UUID, len(d.Messages))
	for i, message := range d.Messages {
		if e, err := inbox.ParseEvent([]byte(message.Body)); err == nil {
			ids[i] = e.ID
		}
	}
	l.note(func(time.Time) {
		for i, message := range d.Messages {
			e := l.recent.byID[ids[i]]
			if e == nil {
				continue
			}
			e.delivered++
			e.deliveries = appendTry(e.deliveries, deliveryOf(d, message))
		}
	})
}

func deliveryOf(d local.Delivery, message events.SQSMessage) delivery {
	one := delivery{
		at: d.At, took: d.Took, messageID: message.MessageId, receiveCount: message.Attributes["ApproximateReceiveCount"], batch: len(d.Messages),
		failed: d.Err != nil || d.Failed[message.MessageId],
	}
	if d.Err != nil {
		one.why = d.Err.Error()
	}
	return one
}

func (l *live) suppressedDuplicates(n int) {
	l.note(func(time.Time) { l.suppress.Suppressed += int64(n) })
}
