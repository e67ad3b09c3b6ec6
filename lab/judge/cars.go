package judge

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	"rds-outbox-demo/lab/domain"
)

// judgeRequests compares what each client was told with the events.
func (t *trial) judgeRequests() {
	cars := make(map[string]bool, len(t.Cars))
	for _, car := range t.Cars {
		cars[car.ID.String()] = true
	}
	byToken := make(map[string][]*event, len(t.Requests))
	for _, e := range t.events {
		if token := domain.Token(e.Data); e.AggregateType == domain.AggregateType && token != "" {
			byToken[token] = append(byToken[token], e)
		}
	}
	promised := map[string]bool{} // missing cars, each of which is reported once
	for _, r := range t.Requests {
		events := byToken[r.Token]
		if r.Answer == Done && !cars[r.CarID] {
			if !promised[r.CarID] {
				t.violation(RulePromisedCar, "%s was answered with success, and there is no such car", r)
			}
			promised[r.CarID] = true
			continue
		}
		switch {
		case len(events) > 1:
			t.violation(RuleWrittenTwice, "%s has %d events: %s, %s ...", r, len(events), events[0], events[1])
		case len(events) == 1 && r.Answer == Refused:
			t.violation(RuleRefusedWritten, "%s was refused, and has %s", r, events[0])
		case len(events) == 0 && r.Answer == Done:
			t.violation(RuleUpdateLost, "%s was answered with success, and has no event", r)
		case len(events) == 1:
			if reason := r.contradicts(events[0]); reason != "" {
				t.violation(RuleCarEvent, "%s: %s: %s", r, events[0], reason)
			}
		}
	}
	t.aggregates(func(events []*event) {
		if e := events[0]; e.AggregateType == domain.AggregateType && !cars[e.AggregateID] && !promised[e.AggregateID] {
			t.violation(RuleCarEvent, "%s belongs to no car", e)
		}
	})
}

func (r Request) String() string {
	return fmt.Sprintf("%s of car %q with token %s", r.Op, r.CarID, r.Token)
}

// contradicts says how the request's event differs from what was asked and answered, or nothing.
func (r Request) contradicts(e *event) string {
	created := e.Version == 1 && e.EventType == domain.Created
	updated := e.Version > 1 && e.EventType == domain.Updated
	switch {
	case r.Op == Create && !created || r.Op == Update && !updated:
		return "its type is " + e.EventType
	case r.CarID != "" && r.CarID != e.AggregateID:
		return "it is another car's"
	case r.Answer == Done && !Describes(e.Data, r.Car):
		return fmt.Sprintf("its data are %s, the answer was %s", e.Data, r.Car)
	}
	return ""
}

// judgeCars compares each car with its events.
func (t *trial) judgeCars() {
	events := map[string][]*event{}
	t.aggregates(func(of []*event) {
		if of[0].AggregateType == domain.AggregateType {
			events[of[0].AggregateID] = of
		}
	})
	for _, car := range t.Cars {
		if reason := car.contradicts(events[car.ID.String()]); reason != "" {
			t.violation(RuleCarEvent, "car %s at version %d: %s", car.ID, car.Version, reason)
		}
	}
}

// contradicts says how the car differs from what its events, in version order, make of it, or nothing.
func (c Car) contradicts(events []*event) string {
	for i, e := range events {
		if want := int64(i + 1); e.Version != want {
			return fmt.Sprintf("it has no event of version %d, but %s", want, e)
		}
	}
	if int64(len(events)) != c.Version {
		return fmt.Sprintf("it has %d events", len(events))
	}
	if len(events) == 0 {
		return ""
	}
	last := events[len(events)-1]
	if !sameState(last.Data, c.State) {
		return fmt.Sprintf("it is %s; %s says %s", c.State, last, last.Data)
	}
	return ""
}

// sameState reports whether event data tell a row's state. Only the event has the time of the change. The other times have two spellings,
// because the row's are PostgreSQL's.
func sameState(eventData, state json.RawMessage) bool {
	got, isEvent := decode(eventData).(map[string]any)
	want, isRow := decode(state).(map[string]any)
	delete(got, "updatedAt")
	return isEvent && isRow && maps.EqualFunc(got, want, func(a, b any) bool {
		return reflect.DeepEqual(a, b) || sameTime(a, b)
	})
}

func sameTime(a, b any) bool {
	one, isText := a.(string)
	other, isTextToo := b.(string)
	x, err := time.Parse(time.RFC3339Nano, one)
	y, errToo := time.Parse(time.RFC3339Nano, other)
	return isText && isTextToo && err == nil && errToo == nil && x.Equal(y)
}
