package judge_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Poison that a message does not take whole. It is made once, because race detection makes it slow.
var (
	bigPayload = []byte("{" + strings.Repeat("x", 70_000))
	bigParked  = parked("", bigPayload[:64<<10], len(bigPayload), true)
)

// round is a judge.Round that can still be damaged, and what its parts mean.
type round struct {
	judge.Round
	earlierPoison uuid.UUID // an event of an earlier round
	now           time.Time
	ids           int
}

func (r *round) id() uuid.UUID {
	r.ids++
	return uuid.UUID{0: 0x01, 6: 0x70, 8: 0x80, 14: byte(r.ids >> 8), 15: byte(r.ids)}
}

// span is an operation that was over before the next one began, and before anything arrived.
func (r *round) span() judge.Span {
	r.Moments = append(r.Moments, 0, 0)
	return judge.Span{Began: len(r.Moments) - 1, Ended: len(r.Moments)}
}

func (r *round) tick() time.Time {
	r.now = r.now.Add(1_237 * time.Microsecond)
	return r.now
}

// generate makes a round in which every promise is kept. It has at least two cars and a note with three versions each, a duplicate,
// a rolled-back event, a poison event, a poison record, a maybe with and one without an event, an event of an earlier round.
func generate(rt *rapid.T) *round {
	r := &round{now: start}
	cars := rapid.IntRange(2, 6).Draw(rt, "cars")
	for i := range cars {
		r.create(rt, fmt.Sprintf("c%d-0-", i))
	}
	for v := 1; v <= 2; v++ {
		for i := range cars {
			r.update(rt, i, fmt.Sprintf("c%d-%d-", i, v), judge.Done)
		}
		r.note(int64(v), `{"text": "a <note> & 1e300"}`)
	}
	r.note(3, `{"number": 12345678901234567890123}`)
	for i := range rapid.IntRange(0, 30).Draw(rt, "updates") {
		answer := rapid.SampledFrom([]judge.Answer{judge.Done, judge.Maybe}).Draw(rt, "answer")
		r.update(rt, rapid.IntRange(0, cars-1).Draw(rt, "car"), fmt.Sprintf("u%d-", i), answer)
	}
	r.update(rt, 0, "maybe-", judge.Maybe)
	r.Requests = append(r.Requests,
		judge.Request{Op: judge.Create, Token: "never-", Answer: judge.Maybe},
		judge.Request{Op: judge.Update, CarID: r.Cars[0].ID.String(), Token: "refused-", Answer: judge.Refused})
	r.create(rt, "maybe-created-")
	created := &r.Requests[len(r.Requests)-1]
	created.CarID, created.Answer, created.Car, created.Span.Ended = "", judge.Maybe, nil, 0
	r.update(rt, 1, "poisoned-", judge.Done)
	r.update(rt, 0, "poisoned-2", judge.Done)
	r.update(rt, 0, "x-poisoned-", judge.Done)
	r.update(rt, 1, "after-", judge.Done)
	// Of another type, with the id of a car.
	for v := range 2 {
		r.row("Memo", r.Cars[0].ID.String(), int64(v+1), "Noted", `{}`)
	}
	r.Poison = []judge.Poison{{Token: "poisoned-"}, {Payload: []byte("\x00poison\xff")}, {Payload: bigPayload}}
	r.Written = append(r.Written, judge.Written{EventID: r.id(), Outcome: judge.RolledBack}, judge.Written{EventID: r.id(), Outcome: judge.MaybeCommit})
	r.arrive(rt)
	r.park()
	r.count()
	r.Windows = []judge.Window{{Kind: "kill-relay", Start: start.Add(time.Millisecond), End: start.Add(9 * time.Millisecond)}}
	return r
}

// count plays carstats. It counts each event that arrived once, in the order of the versions.
func (r *round) count() {
	arrived := map[string]bool{}
	for _, e := range r.Arrivals {
		var detail struct{ EventID string }
		_ = json.Unmarshal(e.Detail, &detail)
		arrived[detail.EventID] = true
	}
	stats, counted := map[string]*judge.Stat{}, map[string]*judge.Stat{}
	rows := slices.Clone(r.Rows)
	slices.SortFunc(rows, func(a, b judge.Row) int { return cmp.Compare(a.Version, b.Version) })
	for _, row := range rows {
		if row.AggregateType != "Car" || !arrived[row.ID.String()] {
			continue
		}
		key, _ := domain.Kind(row.Data)
		if stats[key] == nil {
			stats[key] = &judge.Stat{Kind: key}
		}
		stats[key].Changes++
		if before := counted[row.AggregateID]; before != nil {
			before.Cars--
		}
		counted[row.AggregateID] = stats[key]
		stats[key].Cars++
	}
	for _, s := range stats {
		r.Stats = append(r.Stats, *s)
	}
	slices.SortFunc(r.Stats, func(a, b judge.Stat) int { return cmp.Compare(a.Kind, b.Kind) })
}

// earlierRecord is a poison record of an earlier round that is parked once more.
const earlierRecord = "\x01 of an earlier round"

func (r *round) create(rt *rapid.T, token string) {
	car := judge.Car{ID: r.id(), Version: 1}
	n := rapid.IntRange(0, 6).Draw(rt, "kind")
	set(&car, domain.Create(n, token), fmt.Sprintf(`{"carId":%q,"createdAt":%q}`, car.ID, r.tick().Format(time.RFC3339Nano)))
	r.Cars = append(r.Cars, car)
	r.row("Car", car.ID.String(), 1, "CarCreated", eventData(car, ""))
	r.Requests = append(r.Requests, judge.Request{
		Op: judge.Create, CarID: car.ID.String(), Token: token, Answer: judge.Done, Car: answer(car), Span: r.span(),
	})
}

func (r *round) update(rt *rapid.T, car int, token string, outcome judge.Answer) {
	c := &r.Cars[car]
	c.Version++
	set(c, domain.Change(rapid.IntRange(0, 6).Draw(rt, "kind"), token))
	row := r.row("Car", c.ID.String(), c.Version, "CarUpdated", eventData(*c, r.now.Format(time.RFC3339Nano)))
	if rapid.Bool().Draw(rt, "traced") {
		parent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0" + rapid.SampledFrom([]string{"0", "1", "3"}).Draw(rt, "flags")
		row.Traceparent = &parent
	}
	request := judge.Request{Op: judge.Update, CarID: c.ID.String(), Token: token, Answer: outcome, Span: r.span()}
	if outcome == judge.Done {
		request.Car = answer(*c)
	}
	r.Requests = append(r.Requests, request)
}

func (r *round) note(version int64, data string) {
	row := r.row("Note", "note-1", version, "Noted", data)
	r.Written = append(r.Written, judge.Written{EventID: row.ID, Outcome: []string{judge.Committed, judge.MaybeCommit}[version%2], Span: r.span()})
}

func (r *round) row(kind, aggregate string, version int64, eventType, data string) *judge.Row {
	r.Rows = append(r.Rows, judge.Row{
		ID: r.id(), AggregateType: kind, AggregateID: aggregate, Version: version, EventType: eventType, Data: json.RawMessage(data), CreatedAt: r.tick(),
	})
	return &r.Rows[len(r.Rows)-1]
}

func eventData(c judge.Car, updated string) string {
	data := members(c)
	if updated != "" {
		data["updatedAt"] = updated
	}
	return marshal(data)
}

func answer(c judge.Car) json.RawMessage {
	car := members(c)
	car["id"] = car["carId"]
	delete(car, "carId")
	return json.RawMessage(marshal(car))
}

func members(c judge.Car) (all map[string]any) {
	_ = json.Unmarshal(c.State, &all)
	return all
}

// set changes members of the car's state to those of the objects.
func set(c *judge.Car, objects ...string) {
	all := map[string]any{}
	for _, object := range append([]string{string(c.State)}, objects...) {
		_ = json.Unmarshal([]byte(object), &all)
	}
	c.State = json.RawMessage(marshal(all))
}

func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// arrive delivers the rows in the order of their commit, going back a few every now and then, as after a crash.
func (r *round) arrive(rt *rapid.T) {
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row judge.Row) bool { return strings.Contains(string(row.Data), `"poisoned-"`) })
	back := rapid.IntRange(0, 5)
	for i := 0; i < len(rows); i++ {
		r.Arrivals = append(r.Arrivals, r.entry(rows[i]))
		if len(r.Arrivals) < 300 && rapid.IntRange(0, 9).Draw(rt, "crash") == 0 {
			i = max(-1, i-back.Draw(rt, "back"))
		}
	}
	r.Arrivals = append(r.Arrivals, r.entry(rows[0]))
	// Two events of earlier rounds, one that had arrived and one that was poison.
	old, poison := rows[1], rows[2]
	old.ID, poison.ID = r.id(), r.id()
	r.earlierPoison = poison.ID
	r.Earlier.Add(judge.Round{
		Rows: []judge.Row{old, poison}, Arrivals: []awslocal.BusEvent{r.entry(old)}, Poison: []judge.Poison{{Payload: []byte(earlierRecord)}},
	})
	r.Arrivals = append(r.Arrivals, r.entry(poison), r.entry(old))
}

// entry is the contract of the bus entry once more, by other means than the judge's.
func (r *round) entry(row judge.Row) awslocal.BusEvent {
	detail := fmt.Sprintf(`{"aggregateId":%q,"aggregateType":%q,"aggregateVersion":%d,"eventId":%q,"eventData":%s,"timestamp":%q`,
		row.AggregateID, row.AggregateType, row.Version, row.ID, row.Data, row.CreatedAt.Format("2006-01-02T15:04:05.000000Z"))
	e := awslocal.BusEvent{
		ID: r.id().String(), Bus: "bus", Accepted: r.tick(), Source: "outbox." + strings.ToLower(row.AggregateType),
		DetailType: row.EventType, Time: row.CreatedAt.Truncate(time.Millisecond),
	}
	if row.Traceparent != nil {
		detail += `,"traceparent":"` + *row.Traceparent + `"`
		sampled := map[string]string{"00": "0", "01": "1", "03": "1"}[(*row.Traceparent)[53:]]
		e.TraceHeader = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=" + sampled
	}
	e.Detail = json.RawMessage(detail + "}")
	return e
}

func (r *round) park() {
	for _, row := range r.Rows {
		if strings.Contains(string(row.Data), `"poisoned-"`) {
			r.Parked = append(r.Parked, parkedEvent(row))
		}
	}
	r.Parked = append(r.Parked,
		parked("", r.Poison[1].Payload, len(r.Poison[1].Payload), false),
		parked("", r.Poison[1].Payload, len(r.Poison[1].Payload), false), // parked twice
		bigParked)
	r.Parked = append(r.Parked,
		parked(r.earlierPoison.String(), []byte("{}"), 2, false),
		parked("", []byte(earlierRecord), len(earlierRecord), false))
}

func parkedEvent(row judge.Row) []byte {
	record := marshal(map[string]any{
		"data": map[string]any{
			"id": row.ID, "aggregate_type": row.AggregateType, "aggregate_id": row.AggregateID, "aggregate_version": row.Version,
			"event_type": row.EventType, "event_data": string(row.Data), "created_at": row.CreatedAt,
		},
		"metadata": map[string]any{"record-type": "data"},
	})
	return parked(row.ID.String(), []byte(record), len(record), false)
}

func parked(eventID string, data []byte, size int, truncated bool) []byte {
	return []byte(marshal(map[string]any{
		"reason": "refused", "sequenceNumber": "4961", "eventId": eventID, "data": data, "size": size, "truncated": truncated,
	}))
}
