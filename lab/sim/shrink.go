package sim

import "slices"

// Shrink returns a schedule that is red as well, and from which no fault can be dropped. red runs a schedule and reports whether it
// breaks the same promise. Shrink drops halves first, then smaller parts (delta debugging, ddmin), and then transactions.
func Shrink(s Schedule, red func(Schedule) bool) Schedule {
	for part := max(1, len(s.Faults)/2); ; part = max(1, part/2) {
		dropped := false
		for from := 0; from < len(s.Faults); {
			smaller := s
			smaller.Faults = slices.Delete(slices.Clone(s.Faults), from, min(from+part, len(s.Faults)))
			if red(smaller) {
				s, dropped = smaller, true
			} else {
				from += part
			}
		}
		if part == 1 && !dropped {
			break
		}
	}
	for n := s.Transactions / 2; n > 0; n /= 2 {
		for fewer := s; s.Transactions > n; s = fewer {
			fewer.Transactions = s.Transactions - n
			if !red(fewer) {
				break
			}
		}
	}
	return s
}
