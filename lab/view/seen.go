package view

import (
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// committed takes rows of outbox, oldest first.
func (r *recent) committed(rows []dbgen.Outbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if !r.hasArrived(row.ID, row.CreatedAt) {
			r.keep(row, time.Time{})
		}
	}
}

// eventOf returns the event of a record on the stream; nil when it has long arrived, and is not of the latest.
func (r *recent) eventOf(record outbox.Record) *event {
	row := record.Row
	if r.byID[row.ID] == nil && record.Replay == "" && r.hasArrived(row.ID, row.CreatedAt) {
		return nil
	}
	e := r.keep(row, record.Commit.Time)
	if e.read.IsZero() {
		e.read, e.operation = record.Timestamp, record.Operation
	}
	if !e.walKnown && !record.Commit.Time.IsZero() {
		e.walKnown, e.committed, e.position, e.xid = true, record.Commit.Time, record.Commit.StreamPosition, record.Commit.TransactionID
	}
	return e
}

func (r *recent) stored(record outbox.Record, stored awslocal.StreamRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.eventOf(record)
	if e == nil {
		return
	}
	// The consumer may have it before we are told.
	if i := slices.IndexFunc(e.stored, func(s awslocal.StreamRecord) bool { return s.SequenceNumber == stored.SequenceNumber }); i >= 0 {
		e.stored[i] = stored
		return
	}
	e.storedSum++
	if len(e.stored) < 2 {
		r.grow(e, len(stored.Data))
		e.stored = append(e.stored, stored)
	}
}

// invoked returns how many records the consumer gets again.
func (r *recent) invoked(b local.Batch) (again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	head := b
	head.Records = nil
	for place, record := range b.Records {
		if record.Event == nil {
			continue
		}
		e := r.eventOf(*record.Event)
		if e == nil {
			continue
		}
		if e.storedSum == 0 { // an external stream, or a record of an earlier run
			e.storedSum = 1
			r.grow(e, len(record.Data))
			e.stored = []awslocal.StreamRecord{{
				Shard: b.Shard, SequenceNumber: record.SequenceNumber, Arrival: record.Arrival, PartitionKey: record.PartitionKey, Data: record.Data,
			}}
		}
		if e.invoked++; e.invoked > 1 {
			again++
		}
		e.batches = appendTry(e.batches, try{batch: head, place: place + 1, of: len(b.Records)})
	}
	return again
}

func (r *recent) returned(b local.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for place, record := range b.Records {
		if record.Event == nil || r.byID[record.Event.Row.ID] == nil {
			continue
		}
		e := r.byID[record.Event.Row.ID]
		for i := range e.batches {
			if t := &e.batches[i]; t.batch.Invocation == b.Invocation {
				t.batch.Took = b.Took
				t.state = stateOf(b, place)
			}
		}
	}
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

func (r *recent) put(p local.Put) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range p.Entries {
		if e := r.byID[entry.EventID]; e != nil {
			e.tried++
			e.puts = appendTry(e.puts, put{p.At, entry.BusID, entry.Code, entry.Message})
			e.lastCode = entry.Code
		}
	}
}

func (r *recent) accepted(id uuid.UUID, b awslocal.BusEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byID[id]
	if e == nil {
		return
	}
	if e.copies++; e.accepted.ID == "" {
		r.grow(e, len(b.Detail))
		e.accepted = b
	}
}

func (r *recent) parked(id uuid.UUID, p parking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byID[id]; e != nil {
		e.parked = &p
	}
}

// delivered takes an invocation of the subscriber. ids are the events of its messages.
func (r *recent) delivered(d local.Delivery, ids []uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, message := range d.Messages {
		if e := r.byID[ids[i]]; e != nil {
			e.delivered++
			e.deliveries = appendTry(e.deliveries, deliveryOf(d, message))
		}
	}
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

// newestFirst sorts the events that were seen last by their commits.
func (r *recent) newestFirst() []eventState {
	r.mu.Lock()
	defer r.mu.Unlock()
	chosen := slices.Clone(r.order[max(0, len(r.order)-shown-shown/2):])
	slices.SortStableFunc(chosen, func(a, b *event) int { return b.committed.Compare(a.committed) })
	all := []eventState{}
	for _, e := range chosen[:min(shown, len(chosen))] {
		all = append(all, e.state())
	}
	return all
}

// look calls fn with an event, or with nil if it is not remembered. The event may not be used after fn has returned.
func (r *recent) look(id uuid.UUID, fn func(*event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(r.byID[id])
}
