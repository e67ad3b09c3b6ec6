package view

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// maxTries is how many tries of a kind are remembered of one event. They are the first try and the
// latest ones.
const maxTries = 20

// event is one event and what was seen of it. recent keeps it, and guards it.
type event struct {
	row       dbgen.Outbox
	title     string
	committed time.Time // as the WAL says, or the beginning of its transaction while that is not known
	walKnown  bool
	read      time.Time // by the relay; zero if the event was not seen on the stream
	operation string

	request    *local.Request
	arrival    time.Time // of the first record on the stream
	data       []byte    // of that record
	consumed   time.Time // of the consumer's first invocation
	consumer   seenConsumer
	accepted   awslocal.BusEvent // the first on the bus
	deliveries []delivery
	copies     int // on the bus
	delivered  int // invocations of the subscriber
	parked     bool
	lastCode   string
}

// delivery is an invocation of the subscriber. The answer is "" for one that did not fail, because only later it is known what it was.
type delivery struct {
	seenDelivery
	at, ended time.Time
}

func newEvent(row dbgen.Outbox) *event {
	return &event{row: row, title: title(row), committed: row.CreatedAt}
}

// title is the name by which a reader knows the event's subject.
func title(row dbgen.Outbox) string {
	var data struct{ Name, Title string }
	_ = json.Unmarshal(row.EventData, &data) // members of other types are left out
	for _, candidate := range []string{domain.Title(row.EventData), data.Name, data.Title} {
		if candidate != "" {
			return candidate
		}
	}
	return row.AggregateID
}

// size returns about how many bytes the event takes.
func (e *event) size() int {
	n := 1000 + len(e.row.EventData) + len(e.data) + len(e.accepted.Detail)
	if e.request != nil {
		n += len(e.request.Body) + len(e.request.Answer)
	}
	return n
}

// readFromWAL notes that the relay read one of the event's records.
func (e *event) readFromWAL(record outbox.Record) {
	if e.read.IsZero() {
		e.read, e.operation = record.Timestamp, record.Operation
	}
	if !e.walKnown && !record.Commit.Time.IsZero() {
		e.walKnown, e.committed = true, record.Commit.Time
	}
}

// onStream notes a record on the stream. The consumer is the first to report a record of an
// external stream or of an earlier run.
func (e *event) onStream(arrival time.Time, data []byte) {
	if !e.arrival.IsZero() {
		return
	}
	e.arrival, e.data = arrival, data
	if arrival.Before(e.read) {
		e.arrival = e.read // Kinesis cuts times to milliseconds
	}
}

// invoke notes an invocation of the consumer whose record at place has the event. It reports
// whether the consumer gets the record again.
func (e *event) invoke(b local.Batch, place int) (again bool) {
	e.onStream(b.Records[place].Arrival, b.Records[place].Data)
	if e.consumed.IsZero() {
		e.consumed = b.At
	}
	c := &e.consumer
	c.Delivered++
	c.Invocations = appendTry(c.Invocations, seenInvocation{b.Invocation, exact(b.At), place + 1, len(b.Records), "", "under way"})
	return c.Delivered > 1
}

func (e *event) returned(b local.Batch, place int) {
	for i := range e.consumer.Invocations {
		if one := &e.consumer.Invocations[i]; one.Invocation == b.Invocation {
			one.Took, one.Result = rounded(b.Took), resultOf(b, place)
		}
	}
}

func resultOf(b local.Batch, place int) string {
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

func (e *event) put(at time.Time, entry local.PutEntry) {
	result := "accepted"
	if !entry.Accepted() {
		result = strings.TrimSpace(entry.Code + " " + entry.Message)
	}
	e.consumer.Put++
	e.consumer.PutEvents = appendTry(e.consumer.PutEvents, seenPut{exact(at), result})
	e.lastCode = entry.Code
}

func (e *event) accept(b awslocal.BusEvent) {
	if e.copies++; e.copies == 1 {
		e.accepted = b
	}
}

func (e *event) park() { e.parked = true }

// deliver notes an invocation of the subscriber.
func (e *event) deliver(d local.Delivery, message events.SQSMessage) {
	e.delivered++
	one := delivery{at: d.At, ended: d.At.Add(d.Took)}
	one.seenDelivery = seenDelivery{exact(one.ended), message.MessageId, message.Attributes["ApproximateReceiveCount"], len(d.Messages), ""}
	switch {
	case d.Err != nil:
		one.Answer = "failed: comes again " + d.Err.Error()
	case d.Failed[message.MessageId]:
		one.Answer = "failed: comes again"
	}
	e.deliveries = appendTry(e.deliveries, one)
}

// appendTry appends a try, and keeps only the first one and the latest ones.
func appendTry[T any](tries []T, one T) []T {
	if len(tries) < maxTries {
		return append(tries, one)
	}
	copy(tries[1:], tries[2:])
	tries[maxTries-1] = one
	return tries
}

// hop returns the last hop that the event has passed.
func (e *event) hop() int {
	switch {
	case e.copies > 0:
		return 6
	case e.consumer.Delivered > 0:
		return 5
	case !e.arrival.IsZero():
		return 4
	default:
		return 2
	}
}

// tries returns how often somebody tried to put the event on the bus.
func (e *event) tries() int { return max(e.consumer.Put, e.consumer.Delivered) }

// counted returns the first delivery that did not fail, or nil.
func (e *event) counted() *delivery {
	for i := range e.deliveries {
		if e.deliveries[i].Answer == "" {
			return &e.deliveries[i]
		}
	}
	return nil
}

// eventState is an event as /live has it.
type eventState struct {
	ID          uuid.UUID          `json:"id"`
	Type        string             `json:"type"`
	AggregateID string             `json:"aggregateId"`
	Version     int64              `json:"version"`
	Title       string             `json:"title"`
	CommittedAt string             `json:"committedAt"`
	Hop         int                `json:"hop"`
	Ms          map[string]float64 `json:"ms"`     // since the commit; what is not known (yet) is absent
	Copies      int                `json:"copies"` // on the bus
	Tries       int                `json:"tries"`  // to put it there
	Parked      bool               `json:"parked,omitempty"`
	Held        bool               `json:"held,omitempty"`  // by the subscriber
	Error       string             `json:"error,omitempty"` // why the latest try failed, of one that is not there
}

func (e *event) state() eventState {
	s := eventState{
		ID: e.row.ID, Type: e.row.EventType, AggregateID: e.row.AggregateID, Version: e.row.AggregateVersion, Title: e.title,
		CommittedAt: stamp(e.committed), Hop: e.hop(), Ms: map[string]float64{}, Copies: e.copies, Tries: e.tries(),
		Parked: e.parked && e.copies == 0,
	}
	if e.copies == 0 {
		s.Error = e.lastCode
	}
	if !e.walKnown && e.copies == 0 || e.operation == "load" {
		return s
	}
	times := map[string]time.Time{"read": e.read, "stream": e.arrival, "consumer": e.consumed, "bus": e.accepted.Accepted}
	if d := e.counted(); d != nil {
		times["subscriber"] = d.ended
	}
	for name, at := range times {
		if !at.IsZero() {
			s.Ms[name] = millis(at.Sub(e.committed))
		}
	}
	return s
}
