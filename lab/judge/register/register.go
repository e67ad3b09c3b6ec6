// Package register judges a round a second time, by means that are not ours. It uses porcupine, a checker of linearizability that
// others use and test. It shares the types of a round with package judge, but no rule.
//
// In: a judge.Round. Out: the registers of which no order of the operations explains what was seen. An aggregate is a register of
// versions. A transaction writes the next version, between the moments when its request was sent and answered. The bus delivers versions
// in the order of its journal. The round ends with a read of everything. A request is a register, too, which is set at most once.
package register

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anishathalye/porcupine"

	"rds-outbox-demo/lab/judge"
)

// action is what an operation does to its register.
type action int

const (
	write   action = iota // a transaction commits the version
	deliver               // the version is accepted by the bus
	park                  // the version is poison, and is put into the failure queue in the place of a delivery
	end                   // everything has settled, and the register is read
)

// operation is porcupine's input. It has no output, because an operation that was not seen is not
// in the history.
type operation struct {
	action  action
	version int64 // of end: what was read, or unknown
	request bool  // of end: the register is a request, which is delivered to nobody
}

const (
	unknown = -1 // the version of an end that reads no version
	nobodys = 0  // the version of an event that nobody wrote, or that is poison: no delivery of it is right
)

// state is how far a register has come. Versions are written and delivered without a gap, so one
// number for each is enough.
type state struct{ written, delivered int64 }

// model is the promise. Each version is written once and in turn. It is delivered for the first
// time after it was written and in turn. It may then be delivered again. In the end it was
// delivered.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(before, input, _ any) (bool, any) {
		s, op := before.(state), input.(operation)
		next := op.version == s.delivered+1 && op.version <= s.written
		switch op.action {
		case write:
			return op.version == s.written+1, state{op.version, s.delivered}
		case deliver:
			if op.version != nobodys && op.version <= s.delivered {
				return true, s // a duplicate
			}
			return next, state{s.written, op.version}
		case park:
			return next, state{s.written, op.version}
		default:
			return (op.version == unknown || op.version == s.written) && (op.request || s.delivered == s.written), s
		}
	},
}

// Check returns one line for each register that no order explains, sorted. There is no time limit, because a limit would make the
// verdict one about the machine. None is needed: at any moment at most one write and one delivery are possible, so the states of a
// register with w writes and d deliveries are at most w*d.
func Check(r judge.Round) (unexplained []string) {
	h := newHistory(r)
	h.readRequests()
	h.readAggregates()
	h.readRecords()
	for _, name := range slices.Sorted(maps.Keys(h.registers)) {
		if operations := h.registers[name]; !porcupine.CheckOperations(model, operations) {
			unexplained = append(unexplained, fmt.Sprintf("no order of its %d operations explains %s", len(operations), name))
		}
	}
	return unexplained
}
