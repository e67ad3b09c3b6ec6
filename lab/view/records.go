package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// eventRecords is what GET /events/{id} answers: what each hop has of the event, side by side.
type eventRecords struct {
	ID      uuid.UUID   `json:"id"`
	Copies  int         `json:"copies"`
	Tries   int         `json:"tries"`
	Records []hopRecord `json:"records"`
}

// hopRecord is one hop's. One that is not known has body null and a fact why.
type hopRecord struct {
	Hop     int         `json:"hop"` // 7 is the subscriber
	Title   string      `json:"title"`
	At      string      `json:"at,omitempty"`
	AfterMs *float64    `json:"afterMs,omitempty"` // since the first record whose time is known
	Facts   [][2]string `json:"facts"`
	Body    any         `json:"body"`

	when time.Time
}

func (r *hopRecord) fact(name, format string, args ...any) {
	r.Facts = append(r.Facts, [2]string{name, fmt.Sprintf(format, args...)})
}

func (r *hopRecord) at(when time.Time) { r.when = when }

// event returns an event's records; nil when there is none of this id. The row and the subscriber's note are asked of the database: only
// what is in no table has to be remembered.
func (v *View) event(ctx context.Context, id uuid.UUID) (all *eventRecords, err error) {
	row, noted, dbErr := v.askEvent(ctx, id)
	v.watch.recent.look(id, func(seen *event) {
		if row == nil && seen == nil {
			err = dbErr // nil: there is none
			return
		}
		all = recordsOf(id, seen, row, noted, dbErr)
	})
	return all, err
}

// recordsOf puts together what was seen of an event, unless that is nil, and what the database has of it.
func recordsOf(id uuid.UUID, seen *event, row *dbgen.Outbox, noted time.Time, dbErr error) *eventRecords {
	e := event{}
	why := fmt.Sprintf("Seen by an earlier run, or too long ago: the latest %d events are remembered.", maxRecent)
	if seen != nil {
		e, why = *seen, ""
	}
	if row == nil {
		row = &e.row
	}
	all := &eventRecords{ID: id, Copies: e.copies, Tries: max(e.tried, e.invoked), Records: []hopRecord{
		e.httpRecord(why), rowRecord(*row, dbErr), e.walRecord(why), e.streamRecord(why), e.consumerRecord(why), e.busRecord(why), e.subscriberRecord(why, noted, dbErr),
	}}
	first := time.Time{}
	for i := range all.Records {
		r := &all.Records[i]
		if r.when.IsZero() {
			continue
		}
		if first.IsZero() {
			first = r.when
		}
		after := millis(r.when.Sub(first))
		r.At, r.AfterMs = r.when.UTC().Format("2006-01-02T15:04:05.000000Z"), &after
	}
	return all
}

func (v *View) askEvent(ctx context.Context, id uuid.UUID) (row *dbgen.Outbox, noted time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := connect(ctx, v.path.DatabaseURL)
	if err != nil {
		return nil, noted, fmt.Errorf("the database does not answer: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	found, err := conn.Query(ctx, `SELECT id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at FROM outbox WHERE id = $1`, id)
	if err == nil {
		var one dbgen.Outbox
		one, err = pgx.CollectExactlyOneRow(found, pgx.RowToStructByPos[dbgen.Outbox])
		row = &one
	}
	if errors.Is(err, pgx.ErrNoRows) {
		row, err = nil, nil
	}
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT processed_at FROM inbox WHERE subscriber = 'carstats' AND event_id = $1", id).Scan(&noted)
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
	}
	if err != nil {
		return nil, noted, fmt.Errorf("asking the database: %w", err)
	}
	return row, noted, nil
}

func unknown(r *hopRecord, why string) hopRecord {
	r.Body = nil
	r.fact("why", "%s", why)
	return *r
}

func (e *event) httpRecord(why string) hopRecord {
	r := hopRecord{Hop: 1, Title: "HTTP request"}
	q := e.request
	if q == nil {
		if why == "" {
			why = "No request to the API of this run has written it: it was written beside the API, or before."
		}
		return unknown(&r, why)
	}
	r.at(q.At)
	r.fact("method", "%s", q.Method)
	r.fact("path", "%s", q.Path)
	r.fact("status", "%d", q.Status)
	r.fact("took", "%s", q.Took.Round(time.Microsecond))
	if q.TraceID != "" {
		r.fact("trace id", "%s", q.TraceID)
	}
	r.Body = struct {
		Request any `json:"request"`
		Answer  any `json:"answer"`
	}{asJSON(q.Body), asJSON(q.Answer)}
	return r
}

func rowRecord(row dbgen.Outbox, dbErr error) hopRecord {
	r := hopRecord{Hop: 2, Title: "Row of outbox"}
	r.at(row.CreatedAt)
	r.fact("event", "%s", row.EventType)
	r.fact("aggregate", "%s %s", row.AggregateType, row.AggregateID)
	r.fact("version", "%d", row.AggregateVersion)
	if dbErr != nil {
		r.fact("from", "the record on the stream: the database does not answer")
	}
	r.Body = struct {
		ID               uuid.UUID       `json:"id"`
		AggregateType    string          `json:"aggregate_type"`
		AggregateID      string          `json:"aggregate_id"`
		AggregateVersion int64           `json:"aggregate_version"`
		EventType        string          `json:"event_type"`
		EventData        json.RawMessage `json:"event_data"`
		Traceparent      *string         `json:"traceparent"`
		CreatedAt        time.Time       `json:"created_at"`
	}{row.ID, row.AggregateType, row.AggregateID, row.AggregateVersion, row.EventType, row.EventData, row.Traceparent, row.CreatedAt.UTC()}
	return r
}

func (e *event) walRecord(why string) hopRecord {
	r := hopRecord{Hop: 3, Title: "Position in the WAL"}
	switch {
	case e.read.IsZero() && why == "":
		return unknown(&r, "The relay has not put it on the stream yet: it waits in the WAL.")
	case e.read.IsZero():
		return unknown(&r, why)
	}
	r.at(e.read)
	r.fact("read", "%s", e.read.UTC().Format(time.RFC3339Nano))
	if !e.walKnown {
		r.fact("why", "It came with a load of the table, which has no position in the WAL.")
		return r
	}
	// The relay writes the position as <LSN>.<place>.<LSN of the commit's end>.
	lsns := strings.Split(e.position, ".")
	body := struct {
		CommitLSN     string    `json:"commitLsn"`
		Position      string    `json:"position"`
		TransactionID uint32    `json:"transactionId"`
		CommittedAt   time.Time `json:"committedAt"`
	}{lsns[len(lsns)-1], e.position, e.xid, e.committed.UTC()}
	r.fact("commit LSN", "%s", body.CommitLSN)
	r.fact("transaction", "%d", e.xid)
	r.fact("committed", "%s", e.committed.UTC().Format(time.RFC3339Nano))
	r.Body = body
	return r
}

func (e *event) streamRecord(why string) hopRecord {
	r := hopRecord{Hop: 4, Title: "Record on the stream"}
	if len(e.stored) == 0 {
		if why == "" {
			why = "It is not on the stream yet."
		}
		return unknown(&r, why)
	}
	first := e.stored[0]
	r.at(first.Arrival)
	if first.Arrival.Before(e.read) {
		r.at(e.read) // Kinesis cuts to milliseconds
	}
	r.fact("shard", "%s", first.Shard)
	r.fact("sequence number", "%s", first.SequenceNumber)
	r.fact("partition key", "%s", first.PartitionKey)
	if e.storedSum > 1 {
		r.fact("repeated", "%d times on the stream; again as %s", e.storedSum, e.stored[len(e.stored)-1].SequenceNumber)
	}
	r.Body = asJSON(first.Data)
	return r
}

func (e *event) consumerRecord(why string) hopRecord {
	r := hopRecord{Hop: 5, Title: "Consumer's batch"}
	if len(e.batches) == 0 {
		if why == "" {
			why = "The consumer has not got it yet."
		}
		return unknown(&r, why)
	}
	type invocation struct {
		Invocation string `json:"invocation"`
		At         string `json:"at"`
		Place      int    `json:"place"`
		Of         int    `json:"of"`
		Took       string `json:"took,omitempty"`
		Result     string `json:"result"`
	}
	body := struct {
		Shard       string       `json:"shard"`
		Invocations []invocation `json:"invocations"`
		PutEvents   []any        `json:"putEvents"`
	}{Shard: e.batches[0].batch.Shard, PutEvents: []any{}}
	for _, t := range e.batches {
		one := invocation{t.batch.Invocation, stamp(t.batch.At), t.place, t.of, "", t.state}
		if t.state == "" {
			one.Result = "under way"
		} else {
			one.Took = t.batch.Took.Round(time.Microsecond).String()
		}
		body.Invocations = append(body.Invocations, one)
	}
	for _, p := range e.puts {
		result := "accepted"
		if p.busID == "" {
			result = strings.TrimSpace(p.code + " " + p.message)
		}
		body.PutEvents = append(body.PutEvents, struct {
			At     string `json:"at"`
			Result string `json:"result"`
		}{stamp(p.at), result})
	}
	last := e.batches[len(e.batches)-1]
	r.at(e.batches[0].batch.At)
	r.fact("invocation", "%s", e.batches[0].batch.Invocation)
	r.fact("batch", "record %d of %d", e.batches[0].place, e.batches[0].of)
	r.fact("delivered", "%s", times(e.invoked))
	r.fact("put", "%s", times(e.tried))
	if last.state != "" {
		r.fact("result", "%s", last.state)
	}
	r.Body = body
	return r
}

func (e *event) busRecord(why string) hopRecord {
	r := hopRecord{Hop: 6, Title: "EventBridge entry"}
	if e.parked != nil && e.copies == 0 {
		r.at(e.parked.at)
		return unknown(&r, fmt.Sprintf("It was parked in the failure queue: %s %s %s", e.parked.reason, e.parked.code, e.parked.message))
	}
	if e.copies == 0 {
		if why == "" {
			why = "It is not on the bus yet."
		}
		if e.lastCode != "" {
			r.fact("refused", "%s, the last time with %s", times(e.tried), e.lastCode)
		}
		return unknown(&r, why)
	}
	b := e.accepted
	r.at(b.Accepted)
	r.fact("event id of the bus", "%s", b.ID)
	r.fact("copies", "%s on the bus", times(e.copies))
	r.fact("put", "%s", times(e.tried))
	refusals := slices.DeleteFunc(slices.Clone(e.puts), func(p put) bool { return p.busID != "" })
	if len(refusals) > 0 { // of those that are remembered
		r.fact("not accepted, or no answer", "%s, first with %s", times(len(refusals)), refusals[0].code)
	}
	r.Body = struct {
		EventBusName string   `json:"EventBusName"`
		Source       string   `json:"Source"`
		DetailType   string   `json:"DetailType"`
		Time         string   `json:"Time"`
		Resources    []string `json:"Resources,omitempty"`
		TraceHeader  string   `json:"TraceHeader,omitempty"`
		Detail       any      `json:"Detail"`
	}{b.Bus, b.Source, b.DetailType, b.Time.UTC().Format(time.RFC3339Nano), b.Resources, b.TraceHeader, asJSON(b.Detail)}
	return r
}

func (e *event) subscriberRecord(why string, noted time.Time, dbErr error) hopRecord {
	r := hopRecord{Hop: 7, Title: "Subscriber's answer"}
	if noted.IsZero() && len(e.deliveries) == 0 {
		switch {
		case dbErr != nil && why == "":
			why = "The database, which knows, does not answer."
		case why == "" || dbErr == nil:
			why = "The subscriber has not got it."
		}
		return unknown(&r, why)
	}
	type answered struct {
		At           string `json:"at"`
		MessageID    string `json:"messageId"`
		ReceiveCount string `json:"receiveCount"`
		Batch        int    `json:"batch"`
		Answer       string `json:"answer"`
	}
	body := struct {
		Subscriber string     `json:"subscriber"`
		CountedAt  string     `json:"countedAt,omitempty"`
		Deliveries []answered `json:"deliveries"`
	}{Subscriber: "carstats", Deliveries: []answered{}}
	suppressed := 0
	for i := range e.deliveries {
		d := &e.deliveries[i]
		one := answered{stamp(d.at.Add(d.took)), d.messageID, d.receiveCount, d.batch, "counted"}
		switch {
		case d.failed:
			one.Answer = strings.TrimSpace("failed: comes again " + d.why)
		case d != e.counted() || !noted.IsZero() && noted.Before(d.at): // noted before this delivery: an earlier run counted it
			one.Answer = "suppressed: counted already"
			suppressed++
		}
		body.Deliveries = append(body.Deliveries, one)
	}
	r.fact("delivered", "%s", times(max(e.delivered, 1)))
	if !noted.IsZero() {
		r.at(noted)
		body.CountedAt = noted.UTC().Format(time.RFC3339Nano)
		r.fact("counted", "once, %s", body.CountedAt)
	} else if d := e.counted(); d != nil {
		r.at(d.at.Add(d.took))
	}
	if suppressed > 0 {
		r.fact("suppressed", "%s", times(suppressed))
	}
	r.Body = body
	return r
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

// asJSON is the content as JSON if it is that, else as text.
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
