package register

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

// history is a round in the form that porcupine takes.
type history struct {
	judge.Round
	registers    map[string][]porcupine.Operation // by a name that a person understands
	requests     map[string]judge.Span            // by token
	transactions map[uuid.UUID]judge.Span         // of the events that were written beside the API
	parked       []message
}

// message is what the failure queue has.
type message struct {
	EventID string
	Data    []byte
}

func newHistory(r judge.Round) *history {
	h := &history{
		Round: r, registers: map[string][]porcupine.Operation{}, requests: map[string]judge.Span{}, transactions: map[uuid.UUID]judge.Span{},
	}
	for _, request := range r.Requests {
		h.requests[request.Token] = request.Span
	}
	for _, w := range r.Written {
		h.transactions[w.EventID] = w.Span
	}
	for _, body := range r.Parked {
		var m message
		if json.Unmarshal(body, &m) == nil {
			h.parked = append(h.parked, m)
		}
	}
	return h
}

// The time is logical. Moments and Arrivals have one order, so no clock is read. No moment is the
// first or the last time, and the last read comes after both.
const (
	first = -1
	last  = math.MaxInt64 - 1
)

func (h *history) add(register string, op operation, from, to int64) {
	h.registers[register] = append(h.registers[register], porcupine.Operation{Input: op, Call: from, Return: to})
}

func (h *history) read(register string, op operation) {
	op.action = end
	h.add(register, op, last+1, last+1)
}

// moment is the time of a number in a judge.Span, or otherwise if it is not known.
func (h *history) moment(number int, otherwise int64) int64 {
	if number == 0 {
		return otherwise
	}
	return int64(number - 1 + h.Moments[number-1])
}

// arrival is the time of the arrival at this place, which is after every moment that had not seen
// it.
func (h *history) arrival(place int) int64 {
	return int64(place + sort.Search(len(h.Moments), func(i int) bool { return h.Moments[i] > place }))
}

func (h *history) write(register string, version int64, span judge.Span) {
	h.add(register, operation{action: write, version: version}, h.moment(span.Began, first), h.moment(span.Ended, last))
}

// readRequests makes a register of each request, and of each event that was written beside the API. Its event is its only version. That
// of a request is known by the request's token.
func (h *history) readRequests() {
	for _, row := range h.Rows {
		if span, ok := h.requests[domain.Token(row.Data)]; ok {
			h.write("request "+domain.Token(row.Data), 1, span)
		}
		if span, ok := h.transactions[row.ID]; ok {
			h.write("event "+row.ID.String(), 1, span)
		}
	}
	for _, w := range h.Written {
		version := map[string]int64{judge.Committed: 1, judge.RolledBack: 0, judge.MaybeCommit: unknown}[w.Outcome]
		h.read("event "+w.EventID.String(), operation{version: version, request: true})
	}
	for _, request := range h.Requests {
		version := map[judge.Answer]int64{judge.Done: 1, judge.Refused: 0, judge.Maybe: unknown}[request.Answer]
		h.read("request "+request.Token, operation{version: version, request: true})
	}
}

// readAggregates makes a register of each aggregate, from its rows, its arrivals, its parked poison, and its car.
func (h *history) readAggregates() {
	poison := map[string]bool{}
	for _, p := range h.Poison {
		poison[p.Token] = p.Payload == nil
	}
	versions := map[uuid.UUID]int64{} // that the bus may deliver
	read := map[string]int64{}
	for _, row := range h.Rows {
		name := aggregate(row.AggregateType, row.AggregateID)
		token := domain.Token(row.Data)
		span, ok := h.requests[token]
		if !ok {
			span = h.transactions[row.ID]
		}
		h.write(name, row.Version, span)
		if read[name] = unknown; row.AggregateType == domain.AggregateType {
			read[name] = 0 // unless the car is in the table
		}
		switch {
		case !poison[token]:
			versions[row.ID] = row.Version
		case slices.ContainsFunc(h.parked, func(m message) bool { return m.EventID == row.ID.String() }):
			h.add(name, operation{action: park, version: row.Version}, first, last)
		}
	}
	for place, arrival := range h.Arrivals {
		var detail struct {
			AggregateType, AggregateID string
			EventID                    uuid.UUID
		}
		if err := json.Unmarshal(arrival.Detail, &detail); err == nil && h.Earlier.Knows(detail.EventID) {
			continue // the register of an earlier round
		}
		name := aggregate(detail.AggregateType, detail.AggregateID)
		h.add(name, operation{action: deliver, version: versions[detail.EventID]}, h.arrival(place), h.arrival(place))
	}
	for _, car := range h.Cars {
		read[aggregate(domain.AggregateType, car.ID.String())] = car.Version
	}
	for name, version := range read {
		h.read(name, operation{version: version})
	}
}

// readRecords makes a register of each poison record that was put on the stream. It is written
// once, and parked.
func (h *history) readRecords() {
	for i, p := range h.Poison {
		if p.Payload == nil {
			continue
		}
		name := fmt.Sprintf("poison record %d", i+1)
		h.write(name, 1, judge.Span{})
		// A record may be parked again, and it is parked once.
		if slices.ContainsFunc(h.parked, func(m message) bool { return len(m.Data) > 0 && bytes.HasPrefix(p.Payload, m.Data) }) {
			h.add(name, operation{action: park, version: 1}, first, last)
		}
		h.read(name, operation{version: 1})
	}
}

func aggregate(kind, id string) string { return kind + " " + id }
