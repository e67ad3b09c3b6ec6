package outboxctl

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// Any rows, any arrivals, in any order.
func TestComparisonAgainstAnOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := rules{
			now: start.Add(time.Hour), grace: time.Duration(rapid.IntRange(0, 30).Draw(t, "grace")) * time.Minute,
			late: time.Duration(rapid.IntRange(0, 20).Draw(t, "late")) * time.Minute, limit: 1000,
		}
		var rows []auditRow
		var onBus []busEntry
		n := byte(0)
		for _, kind := range []string{"Bike", "Car"} {
			for _, aggregate := range []string{"a", "a\x01", "B", "é"} {
				for version := range rapid.IntRange(0, 4).Draw(t, "versions") {
					n++
					row := auditRow{eventKey{id(n), kind, aggregate, int64(version + 1)}, start.Add(time.Duration(rapid.IntRange(0, 59).Draw(t, "created")) * time.Minute), rapid.Bool().Draw(t, "passed")}
					committed := rapid.IntRange(0, 9).Draw(t, "committed") > 0
					if committed {
						rows = append(rows, row)
					}
					for range rapid.IntRange(0, 3).Draw(t, "copies") {
						onBus = append(onBus, busEntry{
							EventID: row.EventID, AggregateType: kind, AggregateID: aggregate, AggregateVersion: row.AggregateVersion, CreatedAt: row.CreatedAt,
							BusID:   fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "bus id")), // the same id twice is an entry that was delivered to the log twice
							Arrived: row.CreatedAt.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "delay")) * time.Minute),
							Replay:  rapid.SampledFrom([]string{"", "", "replay/x"}).Draw(t, "replay"),
						})
					}
				}
			}
		}
		want := oracle(rows, onBus, c)
		events := comparison{}
		for _, row := range rapid.Permutation(rows).Draw(t, "rows") {
			events.addRow(row)
		}
		for _, e := range rapid.Permutation(onBus).Draw(t, "entries") {
			events.addEntry(e)
		}
		got := events.judge(c)
		require.Equal(t, want, summary{
			got.Committed, got.OnBus, got.Pending, got.Duplicates.Count, got.Replayed,
			eventIDs(got.Missing), eventIDs(got.Duplicates), eventIDs(got.Late), eventIDs(got.OutOfOrder), eventIDs(got.Unknown),
		})
		require.Len(t, got.Missing.Events, got.Missing.Count)
		require.Len(t, got.OutOfOrder.Events, got.OutOfOrder.Count)
	})
}

type summary struct {
	committed, onBus, pending, duplicates, replayed  int
	missing, duplicated, late, outOfOrder, unknownID map[string]bool
}

func eventIDs(f findings) map[string]bool {
	all := map[string]bool{}
	for _, e := range f.Events {
		all[e.EventID] = true
	}
	return all
}

func oracle(rows []auditRow, onBus []busEntry, c rules) summary {
	s := summary{missing: map[string]bool{}, duplicated: map[string]bool{}, late: map[string]bool{}, outOfOrder: map[string]bool{}, unknownID: map[string]bool{}}
	inTable := map[uuid.UUID]bool{}
	copies := map[uuid.UUID]map[[2]string]bool{}
	first := map[uuid.UUID]time.Time{}
	all := map[uuid.UUID]auditRow{}
	for _, e := range onBus {
		if copies[e.EventID] == nil {
			copies[e.EventID], first[e.EventID] = map[[2]string]bool{}, e.Arrived
		}
		copies[e.EventID][[2]string{e.BusID, e.Replay}] = true
		if e.Arrived.Before(first[e.EventID]) {
			first[e.EventID] = e.Arrived
		}
		all[e.EventID] = auditRow{eventKey: eventKey{e.EventID, e.AggregateType, e.AggregateID, e.AggregateVersion}, CreatedAt: e.CreatedAt}
	}
	young := func(r auditRow) bool { return c.now.Sub(r.CreatedAt) < c.grace }
	for _, r := range rows {
		inTable[r.EventID] = true
		s.committed++
		if len(copies[r.EventID]) == 0 {
			if young(r) {
				s.pending++
			} else {
				s.missing[r.EventID.String()] = true
			}
			continue
		}
		s.onBus++
		plain := 0
		for key := range copies[r.EventID] {
			if key[1] == "" {
				plain++
			} else {
				s.replayed++
			}
		}
		if plain > 1 {
			s.duplicates += plain - 1
			s.duplicated[r.EventID.String()] = true
		}
		if first[r.EventID].Sub(r.CreatedAt) > c.late {
			s.late[r.EventID.String()] = true
		}
	}
	for one, r := range all {
		if !inTable[one] {
			if young(r) {
				s.pending++
			} else {
				s.unknownID[one.String()] = true
			}
		}
		for other, o := range all {
			if o.AggregateType == r.AggregateType && o.AggregateID == r.AggregateID && o.AggregateVersion > r.AggregateVersion && first[other].Before(first[one]) {
				s.outOfOrder[one.String()] = true
			}
		}
	}
	return s
}
