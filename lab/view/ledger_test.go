package view

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// whole is the ledger as it would be if memory were no matter: every row and every arrival.
type whole struct {
	rows    map[uint64]int64 // id: second
	here    map[uint64]bool
	parked  map[uint64]bool
	entries int64
	first   int64
}

// Rows are committed in any second that is not final, arrive once or more, before or after a poll has seen them, are parked and put back:
// the ledger that forgets says at each poll what the one that does not says.
func TestLedgerForgetsNothingThatCounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, w := newLedger(), whole{rows: map[uint64]int64{}, here: map[uint64]bool{}, parked: map[uint64]bool{}}
		next, final := uint64(0), int64(100)
		commit := func(at int64) {
			next++
			w.rows[next] = at
		}
		// What an earlier run has left: some rows have arrived, some have not.
		missing := map[int64][]uint64{}
		before := int64(rapid.IntRange(0, 20).Draw(t, "before"))
		for range before {
			at := rapid.Int64Range(90, 99).Draw(t, "second")
			commit(at)
			if rapid.Bool().Draw(t, "arrived") {
				w.here[next] = true
			} else {
				missing[at] = append(missing[at], next)
			}
		}
		arrive := func() {
			if next == 0 {
				return
			}
			id := rapid.Uint64Range(1, next).Draw(t, "id")
			a := arrival{id: id, aggregate: id, version: 1, second: w.rows[id]}
			if a.parked = rapid.IntRange(0, 9).Draw(t, "parked") == 0; a.parked {
				if !w.here[id] {
					w.parked[id] = true
				}
			} else {
				if w.entries++; !w.here[id] || w.parked[id] {
					w.first++
				}
				delete(w.parked, id)
			}
			w.here[id] = true
			l.arrived(a)
		}
		for range rapid.IntRange(0, 5).Draw(t, "early") {
			arrive()
		}
		l.begin(baseline{final: final, rows: before, missing: missing})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				commit(final + rapid.Int64Range(0, 3).Draw(t, "ahead"))
			case 1, 2:
				arrive()
			case 3:
				rows := map[int64]int64{}
				for _, at := range w.rows {
					if at >= final {
						rows[at]++
					}
				}
				final += rapid.Int64Range(0, 2).Draw(t, "passed")
				l.counted(rows, final)
				committed, on, lost, parked := l.sums()
				onTheWay := 0
				for id := range w.rows {
					if !w.here[id] {
						onTheWay++
					}
				}
				require.EqualValues(t, len(w.rows), committed, "committed")
				require.EqualValues(t, onTheWay, on, "on the way")
				require.EqualValues(t, len(w.parked), parked, "parked")
				require.Zero(t, lost)
				require.Equal(t, w.entries-w.first, l.duplicates, "duplicates")
				require.EqualValues(t, l.below(), belowOf(w.rows, l.final), "below")
			}
		}
	})
}

func belowOf(rows map[uint64]int64, final int64) (n int64) {
	for _, at := range rows {
		if at < final {
			n++
		}
	}
	return n
}

func TestLedgerKeepsLittle(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.begin(baseline{final: 1})
	id := uint64(0)
	// An hour without a relay, and then the events of it.
	for at := int64(1); at <= 3600; at++ {
		l.counted(map[int64]int64{at: 500}, at+1)
	}
	require.Len(t, l.seconds, 3600)
	for _, s := range l.seconds {
		require.Empty(t, s.here)
	}
	for at := int64(1); at <= 3600; at++ {
		for range 500 {
			id++
			require.True(t, l.arrived(arrival{id: id, aggregate: id, version: 1, second: at}))
		}
	}
	require.Empty(t, l.seconds)
	require.LessOrEqual(t, len(l.order.young)+len(l.order.old), 2*maxOrder)
	committed, missing, _, _ := l.sums()
	require.EqualValues(t, 3600*500, committed)
	require.Zero(t, missing)
	require.False(t, l.arrived(arrival{id: 1, aggregate: 1, version: 1, second: 1}), "it is remembered nowhere, and a duplicate all the same")
	require.EqualValues(t, 1, l.duplicates)
}

func TestLedgerSeesDisorder(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.begin(baseline{final: 1})
	for id, version := range []int64{1, 2, 4, 3, 5} {
		l.arrived(arrival{id: uint64(id + 1), aggregate: 7, version: version, second: 1})
	}
	l.arrived(arrival{id: 3, aggregate: 7, version: 4, second: 1}) // a duplicate is none
	require.EqualValues(t, 1, l.outOfOrder)
	require.EqualValues(t, 1, l.duplicates)
}

func TestShortTellsIdsApart(t *testing.T) {
	t.Parallel()
	seen := map[uint64]bool{}
	for n := range 1000 {
		made := uuid.Must(uuid.NewV7())
		require.False(t, seen[short(made)])
		seen[short(made)] = true
		byHand := uuid.UUID{15: byte(n), 14: byte(n >> 8)}
		require.False(t, seen[short(byHand)])
		seen[short(byHand)] = true
	}
}
