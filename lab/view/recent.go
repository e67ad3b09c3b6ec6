package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// Bounds of the memory for single events.
const (
	maxRecent      = 2000
	maxRecentBytes = 32 << 20
	shown          = 40 // in a frame
)

// recent has the events that were seen last.
type recent struct {
	mu sync.Mutex
	// hasArrived reports whether an event that is not remembered was on the bus before.
	hasArrived func(id uuid.UUID, createdAt time.Time) bool

	order    []*event // oldest first
	bytes    int
	byID     map[uuid.UUID]*event
	byChange map[string]*event // aggregate id and version, or trace id

	requests       []string // names of those that were answered before their event was seen, oldest first
	requestsByName map[string]*local.Request
}

func newRecent(hasArrived func(uuid.UUID, time.Time) bool) *recent {
	return &recent{hasArrived: hasArrived, byID: map[uuid.UUID]*event{}, byChange: map[string]*event{}, requestsByName: map[string]*local.Request{}}
}

// of calls fn with an event, if it is remembered. fn must not keep the event.
func (r *recent) of(id uuid.UUID, fn func(*event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byID[id]; e != nil {
		r.change(e, fn)
	}
}

// ofRecord calls fn with the event of a record on the stream. It does nothing if the event arrived long ago and is not remembered.
func (r *recent) ofRecord(record outbox.Record, fn func(*event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := record.Row
	if r.byID[row.ID] == nil && record.Replay == "" && r.hasArrived(row.ID, row.CreatedAt) {
		return
	}
	r.change(r.keep(row), func(e *event) {
		e.readFromWAL(record)
		fn(e)
	})
}

// committed takes rows of outbox, oldest first.
func (r *recent) committed(rows []dbgen.Outbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if !r.hasArrived(row.ID, row.CreatedAt) {
			r.keep(row)
		}
	}
}

// keep returns the event. If it is not remembered, it is added.
func (r *recent) keep(row dbgen.Outbox) *event {
	if e := r.byID[row.ID]; e != nil {
		return e
	}
	e := newEvent(row)
	r.byID[row.ID] = e
	r.order = append(r.order, e)
	for _, name := range changeNames(row) {
		r.byChange[name] = e
		if request := r.requestsByName[name]; request != nil && e.request == nil {
			e.request = request
		}
	}
	r.bytes += e.size()
	r.trim()
	return e
}

func (r *recent) change(e *event, fn func(*event)) {
	before := e.size()
	fn(e)
	r.bytes += e.size() - before
	r.trim()
}

func (r *recent) trim() {
	for len(r.order) > maxRecent || r.bytes > maxRecentBytes && len(r.order) > shown {
		r.forget(r.order[0])
		r.order[0] = nil
		r.order = r.order[1:]
	}
}

func (r *recent) forget(e *event) {
	r.bytes -= e.size()
	delete(r.byID, e.row.ID)
	for _, name := range changeNames(e.row) {
		if r.byChange[name] == e {
			delete(r.byChange, name)
		}
	}
}

// changeNames returns what a request and its event have in common. The trace id is not enough,
// because a client may use one for many requests.
func changeNames(row dbgen.Outbox) []string {
	names := []string{fmt.Sprintf("%s v%d", row.AggregateID, row.AggregateVersion)}
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
	name := id + " v" + strings.Trim(q.ETag, `"`)
	if q.ETag == "" { // the answer to a deletion has no version
		name = id + " " + q.TraceID
	}
	if e := r.byChange[name]; e != nil {
		r.change(e, func(e *event) { e.request = q })
		return
	}
	r.requestsByName[name] = q
	r.requests = append(r.requests, name)
	if len(r.requests) > maxRecent {
		delete(r.requestsByName, r.requests[0])
		r.requests = r.requests[1:]
	}
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
