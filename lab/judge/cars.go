package judge

import (
	"encoding/json"
	"fmt"
	"time"
)

// aggregateCar is the aggregate type whose state is in table cars.
const aggregateCar = "Car"

// carData is the event data of a car.
type carData struct {
	CarID     string    `json:"carId"`
	Make      string    `json:"make"`
	Model     string    `json:"model"`
	Year      int32     `json:"year"`
	Color     *string   `json:"color"`
	CreatedAt time.Time `json:"createdAt"`
}

// judgeRequests compares what each client was told with the events.
func (t *trial) judgeRequests() {
	cars := make(map[string]bool, len(t.Cars))
	for _, car := range t.Cars {
		cars[car.ID.String()] = true
	}
	byToken := make(map[string][]*event, len(t.Requests))
	for i := range t.events {
		e := &t.events[i]
		var data carData
		if e.AggregateType == aggregateCar && json.Unmarshal(e.Data, &data) == nil && data.Color != nil {
			byToken[*data.Color] = append(byToken[*data.Color], e)
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
	t.aggregates(func(events []event) {
		if e := &events[0]; e.AggregateType == aggregateCar && !cars[e.AggregateID] && !promised[e.AggregateID] {
			t.violation(RuleCarEvent, "%s belongs to no car", e)
		}
	})
}

func (r Request) String() string {
	return fmt.Sprintf("%s of car %q with colour %s", r.Op, r.CarID, r.Token)
}

// contradicts says how the request's event differs from what was asked and answered, or nothing.
func (r Request) contradicts(e *event) string {
	created := e.Version == 1 && e.EventType == "CarCreated"
	updated := e.Version > 1 && e.EventType == "CarUpdated"
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
	events := map[string][]event{}
	t.aggregates(func(of []event) {
		if of[0].AggregateType == aggregateCar {
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
func (c Car) contradicts(events []event) string {
	for i := range events {
		if want := int64(i + 1); events[i].Version != want {
			return fmt.Sprintf("it has no event of version %d, but %s", want, &events[i])
		}
	}
	if int64(len(events)) != c.Version {
		return fmt.Sprintf("it has %d events", len(events))
	}
	if len(events) == 0 {
		return ""
	}
	last := &events[len(events)-1]
	var data carData
	if err := json.Unmarshal(last.Data, &data); err != nil {
		return fmt.Sprintf("%s: %v", last, err)
	}
	sameColor := data.Color == c.Color || data.Color != nil && c.Color != nil && *data.Color == *c.Color
	if data.CarID != c.ID.String() || data.Make != c.Make || data.Model != c.Model || data.Year != c.Year || !sameColor ||
		!data.CreatedAt.Equal(c.CreatedAt) {
		color := "none"
		if c.Color != nil {
			color = *c.Color
		}
		return fmt.Sprintf("it is a %s %s of %d, colour %s, created %s; %s says %s",
			c.Make, c.Model, c.Year, color, c.CreatedAt.UTC().Format(time.RFC3339Nano), last, last.Data)
	}
	return ""
}
