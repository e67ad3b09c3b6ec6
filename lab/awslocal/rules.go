package awslocal

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Rule is a rule of EventBridge with one target, an SQS queue that gets each matching event in
// EventBridge's envelope. Delivery is at least once and in any order. Faults of Service "rules"
// repeat, reorder and lose it.
type Rule struct {
	Bus         string
	Source      string   // exactly this one
	DetailTypes []string // the event has one of these. If it is empty any type matches
	Queue       string
}

func (r Rule) matches(e BusEvent) bool {
	return e.Bus == r.Bus && e.Source == r.Source && (len(r.DetailTypes) == 0 || slices.Contains(r.DetailTypes, e.DetailType))
}

// rules hands accepted events to the queues.
type rules struct {
	all    []Rule
	queues map[string]*queue
	faults *Faults
	log    *slog.Logger
}

func openRules(conf Config, queues map[string]*queue, faults *Faults) (*rules, error) {
	for i, rule := range conf.Rules {
		if rule.Source == "" || !slices.Contains(slices.Concat(conf.Buses, []string{"default"}), rule.Bus) || queues[rule.Queue] == nil {
			return nil, fmt.Errorf("awslocal: Config.Rules[%d] is %+v: name a bus of Buses, a source and a queue of Queues", i, rule)
		}
	}
	return &rules{conf.Rules, queues, faults, conf.Log}, nil
}

// deliver runs after the journal's write and before PutEvents answers. A kill in between loses
// nothing that was promised. The call then has no answer, and its caller repeats it, as with AWS.
func (r *rules) deliver(events []BusEvent) error {
	for _, e := range events {
		for _, rule := range r.all {
			if !rule.matches(e) {
				continue
			}
			body := logMessage(e)
			// What EventBridge does with such an event is not documented. A failed delivery is the worst case: PutEvents has accepted it.
			if err := checkCharacters(body); err != nil {
				r.log.Error("an event did not get into the queue of its rule", "queue", rule.Queue, "event", e.ID, "err", err)
				continue
			}
			for _, delay := range r.faults.onDelivery(e) {
				if _, err := r.queues[rule.Queue].send(body, nil, delay); err != nil {
					return fmt.Errorf("delivering an event to queue %s: %w", rule.Queue, err)
				}
			}
		}
	}
	return nil
}

// serviceRules is the Service of faults between a bus and a queue, which have no Operation.
const serviceRules = "rules"

// onDelivery returns the delay of each copy of the event. If no rule strikes, there is one copy, at
// once. A rule that loses the event leaves none.
func (f *Faults) onDelivery(e BusEvent) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	copies, lost := []time.Duration{0}, false
	for _, a := range f.active {
		if a.fault.Service != serviceRules || !strings.Contains(string(e.Detail), a.fault.Match) || !f.take(a) {
			continue
		}
		delay := time.Duration(a.random.Float64() * float64(a.fault.Delay))
		switch a.fault.Kind {
		case Duplicate:
			copies = append(copies, delay)
		case Lose:
			lost = true
		default:
			copies[0] += delay
		}
	}
	if lost {
		return nil
	}
	return copies
}
