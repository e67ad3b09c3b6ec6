package view

import (
	"cmp"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
)

// Bounds of what is remembered of single events.
const (
	maxRecent      = 2000
	maxRecentBytes = 32 << 20
	maxTries       = 20 // of each kind, of one event: the first, and the last ones
	shown          = 40 // in a frame
)

// recent has the events that were seen last, with what was seen of them at each hop.
type recent struct {
	mu sync.Mutex
	// hasArrived reports whether an event that is not remembered was on the bus before.
	hasArrived func(id uuid.UUID, createdAt time.Time) bool

	order    []*event // oldest first
	bytes    int
	byID     map[uuid.UUID]*event
	byChange map[string]*event // aggregate id and version, or trace id

	requests       []change // answered before their event was seen, oldest first
	requestsByName map[string]*local.Request
}

type change struct {
	names   []string
	request *local.Request
}

// event is one event and what was seen of it.
type event struct {
	row       dbgen.Outbox
	xid       uint32
	title     string
	committed time.Time // by the WAL, or, until that is known, the beginning of its transaction
	walKnown  bool
	read      time.Time
	position  string // in the WAL
	operation string

	request    *local.Request
	stored     []awslocal.StreamRecord // as the stream took it; at most two
	storedSum  int
	batches    []try
	puts       []put
	accepted   awslocal.BusEvent // the first on the bus
	deliveries []delivery
	copies     int // on the bus
	tried      int // PutEvents
	invoked    int
	delivered  int // invocations of the subscriber
	parked     *parking
	lastCode   string

	bytes int
}

// try is an invocation of the consumer with the event.
type try struct {
	batch local.Batch // without records
	place int
	of    int
	state string // "" until it has returned
}

type put struct {
	at            time.Time
	busID         string
	code, message string
}

type delivery struct {
	at           time.Time
	took         time.Duration
	messageID    string
	receiveCount string
	batch        int
	failed       bool
	why          string
}

type parking struct {
	at                    time.Time
	reason, code, message string
}

func newRecent(hasArrived func(uuid.UUID, time.Time) bool) *recent {
	return &recent{hasArrived: hasArrived, byID: map[uuid.UUID]*event{}, byChange: map[string]*event{}, requestsByName: map[string]*local.Request{}}
}

// keep returns the event, which is new if it is not there.
func (r *recent) keep(row dbgen.Outbox, committed time.Time) *event {
	if e := r.byID[row.ID]; e != nil {
		return e
	}
	e := &event{row: row, title: title(row), committed: committed, bytes: len(row.EventData) + 1000}
	if e.committed.IsZero() {
		e.committed = row.CreatedAt
	}
	r.byID[row.ID] = e
	r.order = append(r.order, e)
	r.bytes += e.bytes
	for _, name := range changeNames(row) {
		r.byChange[name] = e
		if request := r.requestsByName[name]; request != nil && e.request == nil {
			r.grow(e, len(request.Body)+len(request.Answer))
			e.request = request
		}
	}
	r.trim()
	return e
}

func (r *recent) trim() {
	for len(r.order) > maxRecent || r.bytes > maxRecentBytes && len(r.order) > shown {
		r.forget(r.order[0])
		r.order[0] = nil
		r.order = r.order[1:]
	}
}

func (r *recent) forget(e *event) {
	r.bytes -= e.bytes
	delete(r.byID, e.row.ID)
	for _, name := range changeNames(e.row) {
		if r.byChange[name] == e {
			delete(r.byChange, name)
		}
	}
}

func (r *recent) grow(e *event, bytes int) {
	if r.byID[e.row.ID] == e {
		e.bytes += bytes
		r.bytes += bytes
		r.trim()
	}
}

// changeNames are what a request and its event have in common. The trace id is not enough: a client may use one for many requests.
func changeNames(row dbgen.Outbox) []string {
	names := []string{row.AggregateID + " v" + itoa(row.AggregateVersion)}
	if row.Traceparent != nil && len(*row.Traceparent) == 55 {
		names = append(names, row.AggregateID+" "+(*row.Traceparent)[3:35])
	}
	return names
}

// requested notes a request that has changed a car.
func (r *recent) requested(q *local.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := ""
	if parts := strings.Split(cmp.Or(q.Location, q.Path), "/"); len(parts) > 2 { // "", "cars", the id
		id = parts[2]
	}
	names := []string{id + " v" + strings.Trim(q.ETag, `"`)}
	if q.ETag == "" { // a deletion tells no version
		names = []string{id + " " + q.TraceID}
	}
	for _, name := range names {
		if e := r.byChange[name]; e != nil {
			r.grow(e, len(q.Body)+len(q.Answer))
			e.request = q
			return
		}
	}
	for _, name := range names {
		r.requestsByName[name] = q
	}
	r.requests = append(r.requests, change{names, q})
	for len(r.requests) > maxRecent {
		for _, name := range r.requests[0].names {
			delete(r.requestsByName, name)
		}
		r.requests[0] = change{}
		r.requests = r.requests[1:]
	}
}

// title is what a reader knows the event's subject by.
func title(row dbgen.Outbox) string {
	var data struct{ Make, Model, Name, Title string }
	_ = json.Unmarshal(row.EventData, &data) // of members of other types nothing is taken
	for _, candidate := range []string{strings.TrimSpace(data.Make + " " + data.Model), data.Name, data.Title} {
		if candidate != "" {
			return candidate
		}
	}
	return row.AggregateID
}

// appendTry keeps the first and the last ones.
func appendTry[T any](tries []T, one T) []T {
	if len(tries) < maxTries {
		return append(tries, one)
	}
	copy(tries[1:], tries[2:])
	tries[maxTries-1] = one
	return tries
}

// hop is how far the event has come.
func (e *event) hop() int {
	switch {
	case e.copies > 0:
		return 6
	case e.invoked > 0:
		return 5
	case e.storedSum > 0:
		return 4
	default:
		return 2
	}
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
	Error       string             `json:"error,omitempty"` // why the latest try failed, of one that is not there
}

func (e *event) state() eventState {
	s := eventState{
		ID: e.row.ID, Type: e.row.EventType, AggregateID: e.row.AggregateID, Version: e.row.AggregateVersion, Title: e.title,
		CommittedAt: stamp(e.committed), Hop: e.hop(), Ms: map[string]float64{}, Copies: e.copies, Tries: max(e.tried, e.invoked),
		Parked: e.parked != nil && e.copies == 0,
	}
	if e.copies == 0 {
		s.Error = e.lastCode
	}
	if !e.walKnown && e.copies == 0 || e.operation == "load" {
		return s
	}
	times := map[string]time.Time{"read": e.read, "bus": e.accepted.Accepted}
	if len(e.stored) > 0 {
		times["stream"] = e.stored[0].Arrival
		if times["stream"].Before(e.read) {
			times["stream"] = e.read // cut to milliseconds
		}
	}
	if len(e.batches) > 0 {
		times["consumer"] = e.batches[0].batch.At
	}
	if d := e.counted(); d != nil {
		times["subscriber"] = d.at.Add(d.took)
	}
	for name, at := range times {
		if !at.IsZero() {
			s.Ms[name] = millis(at.Sub(e.committed))
		}
	}
	return s
}

// counted is the first delivery that did not fail; nil until there is one.
func (e *event) counted() *delivery {
	for i := range e.deliveries {
		if !e.deliveries[i].failed {
			return &e.deliveries[i]
		}
	}
	return nil
}
