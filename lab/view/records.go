package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/outboxctl"
)

// seen is the answer of GET /events/{id}. It has what only the parts of the path that handled the
// event know of it. A null member was not seen. Everything else about the event is in the answer of
// GET /events/{id}/where, which is outboxctl.Where's.
type seen struct {
	Why        string          `json:"why,omitempty"` // nothing was seen
	Copies     int             `json:"copies"`        // on the bus
	Tries      int             `json:"tries"`         // to put it there
	Parked     bool            `json:"parked"`
	ReadAt     string          `json:"readAt,omitempty"`      // by the relay
	Trace      *string         `json:"traceparent,omitempty"` // of the row
	EventData  json.RawMessage `json:"eventData"`
	Request    *seenRequest    `json:"request"`
	Record     any             `json:"record"` // the first on the stream
	Consumer   *seenConsumer   `json:"consumer"`
	Entry      *seenEntry      `json:"entry"` // the first on the bus
	Subscriber *seenSubscriber `json:"subscriber"`
}

type seenRequest struct {
	At      string `json:"at"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Status  int    `json:"status"`
	Took    string `json:"took"`
	TraceID string `json:"traceId,omitempty"`
	Request any    `json:"request"` // body
	Answer  any    `json:"answer"`  // body
}

type seenConsumer struct {
	Delivered   int              `json:"delivered"` // times
	Put         int              `json:"put"`       // times
	Invocations []seenInvocation `json:"invocations"`
	PutEvents   []seenPut        `json:"putEvents"`
}

type seenInvocation struct {
	Invocation string `json:"invocation"`
	At         string `json:"at"`
	Place      int    `json:"place"`
	Of         int    `json:"of"` // records
	Took       string `json:"took,omitempty"`
	Result     string `json:"result"`
}

type seenPut struct {
	At     string `json:"at"`
	Result string `json:"result"`
}

type seenEntry struct {
	AcceptedAt   string   `json:"acceptedAt"`
	EventBusName string   `json:"EventBusName"`
	Source       string   `json:"Source"`
	DetailType   string   `json:"DetailType"`
	Time         string   `json:"Time"`
	Resources    []string `json:"Resources,omitempty"`
	TraceHeader  string   `json:"TraceHeader,omitempty"`
	Detail       any      `json:"Detail"`
}

type seenSubscriber struct {
	Subscriber string         `json:"subscriber"`
	CountedAt  string         `json:"countedAt,omitempty"`
	Delivered  int            `json:"delivered"` // times
	Deliveries []seenDelivery `json:"deliveries"`
}

type seenDelivery struct {
	At           string `json:"at"`
	MessageID    string `json:"messageId"`
	ReceiveCount string `json:"receiveCount"`
	Batch        int    `json:"batch"` // messages
	Answer       string `json:"answer"`
}

// eventID returns the id of the request's path.
func eventID(r *http.Request) (uuid.UUID, error) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return id, refusal{http.StatusNotFound, "an event's id is a UUID"}
	}
	return id, nil
}

// getEvent is GET /events/{id}.
func (v *View) getEvent(r *http.Request) (any, error) {
	id, err := eventID(r)
	if err != nil {
		return nil, err
	}
	noted := v.inboxNote(r.Context(), id)
	all := seen{Why: fmt.Sprintf("Seen by an earlier run, or too long ago: the latest %d events are remembered.", maxRecent)}
	all.Subscriber = (&event{}).seenSubscriber(noted)
	v.watch.recent.of(id, func(e *event) { all = e.seen(noted) })
	return all, nil
}

// getWhere is GET /events/{id}/where. It answers what `outboxctl where --json` prints.
func (v *View) getWhere(r *http.Request) (any, error) {
	id, err := eventID(r)
	if err != nil {
		return nil, err
	}
	setup, err := v.path.Operator()
	if err != nil {
		return nil, refusal{http.StatusNotFound, err.Error()}
	}
	report, err := outboxctl.Where(r.Context(), setup, id, outboxctl.MaxRecords)
	if err != nil {
		return nil, refusal{http.StatusServiceUnavailable, err.Error()}
	}
	return report, nil
}

// inboxNote is what the subscriber's inbox says of an event.
type inboxNote struct {
	at    time.Time // zero if the event is not in it
	known bool      // the database has answered. Without an answer nobody may say that the event is not counted.
}

func (v *View) inboxNote(ctx context.Context, id uuid.UUID) (n inboxNote) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := connect(ctx, v.path.DatabaseURL, statementTimeout)
	if err != nil {
		return n
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, "SELECT processed_at FROM inbox WHERE subscriber = 'carstats' AND event_id = $1", id).Scan(&n.at)
	n.known = err == nil || errors.Is(err, pgx.ErrNoRows)
	return n
}

// seen returns what was seen of the event, and what its subscriber noted.
func (e *event) seen(noted inboxNote) seen {
	all := seen{
		Copies: e.copies, Tries: e.tries(), Parked: e.parked, ReadAt: exact(e.read), Trace: e.row.Traceparent, EventData: e.row.EventData, Record: asJSON(e.data),
		Consumer: e.seenConsumer(), Subscriber: e.seenSubscriber(noted),
	}
	if q := e.request; q != nil {
		all.Request = &seenRequest{exact(q.At), q.Method, q.Path, q.Status, rounded(q.Took), q.TraceID, asJSON(q.Body), asJSON(q.Answer)}
	}
	if b := e.accepted; e.copies > 0 {
		all.Entry = &seenEntry{exact(b.Accepted), b.Bus, b.Source, b.DetailType, exact(b.Time), b.Resources, b.TraceHeader, asJSON(b.Detail)}
	}
	return all
}

// seenConsumer returns a copy, because the event goes on.
func (e *event) seenConsumer() *seenConsumer {
	if e.consumer.Delivered == 0 {
		return nil
	}
	c := e.consumer
	c.Invocations, c.PutEvents = slices.Clone(c.Invocations), append([]seenPut{}, c.PutEvents...)
	return &c
}

func (e *event) seenSubscriber(noted inboxNote) *seenSubscriber {
	if noted.at.IsZero() && e.delivered == 0 {
		return nil
	}
	s := &seenSubscriber{Subscriber: "carstats", CountedAt: exact(noted.at), Delivered: max(e.delivered, 1), Deliveries: []seenDelivery{}}
	counted := e.counted()
	for i := range e.deliveries {
		d := &e.deliveries[i]
		one := d.seenDelivery
		switch {
		case one.Answer != "":
		case d != counted || !noted.at.IsZero() && noted.at.Before(d.at): // if it was noted before this delivery, an earlier run counted it
			one.Answer = "suppressed: counted already"
		case !noted.known:
			one.Answer = "taken; the database does not say whether it counted"
		case noted.at.IsZero():
			one.Answer = "taken, not counted"
		default:
			one.Answer = "counted"
		}
		s.Deliveries = append(s.Deliveries, one)
	}
	return s
}

// exact formats a time in microseconds, and the zero time as "".
func exact(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

func rounded(d time.Duration) string { return d.Round(time.Microsecond).String() }

// asJSON returns the content as JSON if it is JSON, and otherwise as text.
func asJSON(content []byte) any {
	switch {
	case len(content) == 0:
		return nil
	case json.Valid(content) && utf8.Valid(content):
		return json.RawMessage(content)
	default:
		return strings.ToValidUTF8(string(content), "\uFFFD")
	}
}
