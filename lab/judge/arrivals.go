package judge

import (
	"encoding/json"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
)

// judgeWritten looks for the events that were written beside the API in the table.
func (t *trial) judgeWritten() {
	for _, w := range t.Written {
		e := t.byID[w.EventID]
		switch {
		case w.Outcome == Committed && e == nil:
			t.violation(RuleUpdateLost, "event %s: its commit was answered, and outbox has no row of it", w.EventID)
		case w.Outcome == RolledBack && e != nil:
			t.violation(RuleRolledBack, "%s is in outbox, but its transaction was rolled back", e)
		}
	}
}

// judgeArrivals holds each entry on the bus against its row. What it notes in t.events, the other steps use.
func (t *trial) judgeArrivals() {
	reported := map[uuid.UUID]bool{} // strangers
	type aggregate struct{ kind, id string }
	var order order[aggregate]
	for place := range t.Arrivals {
		arrival := &t.Arrivals[place]
		id, ok := eventID(arrival)
		if !ok {
			t.violation(RuleUnknown, "entry %s on the bus has no eventId", arrival.ID)
			continue
		}
		e := t.byID[id]
		switch {
		case e == nil || e.rolledBack:
			t.judgeStranger(id, arrival, reported)
		case e.first == nil:
			e.first = arrival
			if e.poison {
				t.violation(RulePoisonPublished, "%s is on the bus, but the bus should have refused it", e)
			} else if highest, inOrder := order.next(aggregate{e.AggregateType, e.AggregateID}, e.Version); !inOrder {
				t.violation(RuleReordered, "%s arrived at place %d, after version %d", e, place, highest)
			}
			if reason := Contradiction(e.Row, *arrival); reason != "" {
				t.violation(RuleContract, "%s: %s", e, reason)
			}
		default:
			t.Duplicates++
			if EntryText(*e.first) != t.copyText(*arrival) {
				t.violation(RuleDuplicateDiffers, "%s: entry %s is a duplicate that differs from the first, %s", e, arrival.ID, e.first.ID)
			}
		}
	}
}

// judgeStranger judges an entry that no committed row of this round has caused.
func (t *trial) judgeStranger(id uuid.UUID, arrival *awslocal.BusEvent, reported map[uuid.UUID]bool) {
	switch {
	case t.Earlier.Knows(id):
		t.Duplicates++
		if !t.Earlier.allows(id, t.copyText(*arrival)) {
			t.violation(RuleDuplicateDiffers, "event %s of an earlier round: entry %s is a duplicate that differs from the first", id, arrival.ID)
		}
		return
	case reported[id]:
		t.Duplicates++
	case t.fates[id] == RolledBack:
		t.violation(RuleRolledBack, "event %s is on the bus, but its transaction was rolled back", id)
	default:
		t.violation(RuleUnknown, "event %s is on the bus, but outbox has no row of it", id)
	}
	reported[id] = true
}

// judgeDelivery looks for what did not arrive.
func (t *trial) judgeDelivery() {
	for _, e := range t.events {
		switch {
		case e.poison || e.rolledBack || e.first != nil: // judged already
		case e.parked:
			t.violation(RuleLost, "%s is not on the bus: it was parked", e)
		default:
			t.violation(RuleLost, "%s is not on the bus", e)
		}
	}
}

// judgeRefusals checks how far the relay got. Without a confirmed position each session sends the
// same records again and gets no further.
func (t *trial) judgeRefusals() {
	for _, r := range t.Refusals {
		if !r.Confirmed {
			t.violation(RuleStuck, "event %s was committed before a change that the relay refuses: %d sessions ended without confirming it", r.EventID, r.Sessions)
		}
	}
}

// judgePromotions checks that no promotion made the relay load, and that the duplicates are few.
func (t *trial) judgePromotions() {
	for _, p := range t.Promotions {
		if !p.SlotKept {
			t.violation(RuleReloaded, "the new primary had no slot: the relay sends every retained row again")
		}
	}
	if most := MaxDuplicates * len(t.Promotions); most > 0 && t.Duplicates > most {
		t.violation(RuleReloaded, "%d duplicates after %d promotions, which may cost %d", t.Duplicates, len(t.Promotions), most)
	}
}

func eventID(arrival *awslocal.BusEvent) (uuid.UUID, bool) {
	var detail struct {
		EventID *uuid.UUID `json:"eventId"`
	}
	if json.Unmarshal(arrival.Detail, &detail) != nil || detail.EventID == nil {
		return uuid.Nil, false
	}
	return *detail.EventID, true
}
