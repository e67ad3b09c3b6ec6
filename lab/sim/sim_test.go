package sim

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sabotage"
)

var (
	flagSeed    = flag.Uint64("seed", 0, "the first seed; 0 draws one")
	flagSeconds = flag.Int("seconds", 0, "how long to look for a schedule that breaks the promise; 0 runs a few fixed seeds")
	flagRepeats = flag.Int("repeats", 4, "how often one seed runs")
	flagKeep    = flag.Bool("keep", false, "shrink the schedule that exposes the sabotage, and keep it in testdata")
)

const (
	faultsPerRun = 160
	fewSeeds     = 6
	mostRuns     = 60 // that may pass before a sabotage is found. That is a few seconds.
)

// With more processors, goroutines that are ready at one instant run at once.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}

func simulate(t *testing.T, s Schedule) (r Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		r = Run(s)
		time.Sleep(time.Minute) // what a driver does after a connection has ended takes seconds
	})
	return r
}

func (r Result) sum() [sha256.Size]byte { return sha256.Sum256([]byte(strings.Join(r.History, "\n"))) }

func (r Result) requireGreen(t *testing.T, s Schedule) {
	t.Helper()
	if !r.Red() {
		return
	}
	wanted := r.Rules()
	small := Shrink(s, func(s Schedule) bool { return breaksAny(simulate(t, s), wanted) })
	schedule, err := json.Marshal(small)
	require.NoError(t, err)
	again := simulate(t, small)
	require.Fail(t, "the promise is broken", "seed %d: %s\n%v\nshrunk: %s\n%s", s.Seed, wanted, again.Violations, schedule, strings.Join(again.History, "\n"))
}

func breaksAny(r Result, rules []string) bool {
	return slices.ContainsFunc(r.Rules(), func(rule string) bool { return slices.Contains(rules, rule) })
}

func TestTheSameSeedHasTheSameHistory(t *testing.T) {
	skipIfSabotaged(t)
	seed := max(1, *flagSeed)
	first := simulate(t, Draw(seed, faultsPerRun))
	require.Greater(t, len(first.Struck), faultsPerRun/2, "faults struck")
	for range *flagRepeats {
		if again := simulate(t, Draw(seed, faultsPerRun)); again.sum() != first.sum() {
			require.Equal(t, strings.Join(first.History, "\n"), strings.Join(again.History, "\n"))
		}
	}
	other := simulate(t, Draw(seed+1, faultsPerRun))
	require.NotEqual(t, first.sum(), other.sum())
	t.Logf("seed %d: %d runs have the same %d lines, with %d faults", seed, 1+*flagRepeats, len(first.History), len(first.Struck))
}

// A few seeds strike every kind of fault, so no kind is left out by a mistake in a model.
func TestThePromiseHolds(t *testing.T) {
	skipIfSabotaged(t)
	seed, began, struck := *flagSeed, time.Now(), map[Kind]int{}
	fixed := seed == 0 && *flagSeconds == 0
	if seed == 0 && !fixed {
		seed = rand.Uint64N(1 << 32)
	}
	runs, faults, events, duplicates := 0, 0, 0, 0
	for ; runs < fewSeeds || time.Since(began) < time.Duration(*flagSeconds)*time.Second; runs++ {
		schedule := Draw(seed+uint64(runs), faultsPerRun)
		result := simulate(t, schedule)
		result.requireGreen(t, schedule)
		for _, fault := range result.Struck {
			struck[fault.Kind]++
		}
		faults, events, duplicates = faults+len(result.Struck), events+result.Events, duplicates+result.Duplicates
	}
	took := time.Since(began)
	t.Logf("seeds %d to %d: %d events, %d duplicates, %d faults (%.0f a minute) %v", seed, seed+uint64(runs)-1, events, duplicates, faults,
		float64(faults)/took.Minutes(), struck)
	if fixed {
		for _, w := range weights {
			require.NotZero(t, struck[w.kind], "no fault %s struck", w.kind)
		}
	}
}

// exposed says what each sabotage breaks. lab/chaos knows the same promises of the whole path.
var exposed = map[sabotage.Rule][]string{
	sabotage.ConfirmBeforePut:       {"lost", "reordered"},
	sabotage.StartAtCurrentLSN:      {"lost", "reordered"},
	sabotage.LookOnlyAtStart:        {"lost"},
	sabotage.NoDrainOnError:         {"stuck"},
	sabotage.LoadWithoutSnapshot:    {"lost", "reordered"},
	sabotage.RetryOnlyTheFailed:     {"reordered"},
	sabotage.IgnoreFailedEntryCount: {"lost", "reordered"},
	sabotage.AggregateInTwoLanes:    {"reordered"},
	sabotage.WrongIdentifier:        {"lost", "reordered"},
	sabotage.SkipPoisonSilently:     {"poison-lost"},
	sabotage.ParkUnanswered:         {"poison-lost"},
}

// turnedOff is the rule that the build breaks, or "".
func turnedOff() sabotage.Rule {
	for rule := range exposed {
		if sabotage.On(rule) {
			return rule
		}
	}
	return ""
}

func skipIfSabotaged(t *testing.T) {
	t.Helper()
	if rule := turnedOff(); rule != "" {
		t.Skip("the build breaks " + rule)
	}
}

func TestASabotageIsFound(t *testing.T) {
	rule := turnedOff()
	if rule == "" {
		t.Skip("make sim breaks each rule, and runs this test")
	}
	first, began := max(1, *flagSeed), time.Now()
	for seed := first; seed < first+mostRuns; seed++ {
		schedule := Draw(seed, faultsPerRun)
		result := simulate(t, schedule)
		if breaksAny(result, exposed[rule]) {
			t.Logf("%s: %s after %.1f s, in run %d", rule, result.Rules(), time.Since(began).Seconds(), 1+seed-first)
			if *flagKeep {
				keep(t, rule, schedule)
			}
			return
		}
	}
	require.Fail(t, "not found", "%s, in %d runs", rule, mostRuns)
}

// kept is a schedule that exposes a sabotage, shrunk.
func kept(rule sabotage.Rule) string { return filepath.Join("testdata", string(rule)+".json") }

func keep(t *testing.T, rule sabotage.Rule, s Schedule) {
	t.Helper()
	small := Shrink(s, func(s Schedule) bool { return breaksAny(simulate(t, s), exposed[rule]) })
	content, err := json.MarshalIndent(small, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kept(rule), append(content, '\n'), 0o600))
	t.Logf("%s: %d faults left", rule, len(small.Faults))
}

// Each kept schedule breaks the promise if its rule is off, and only then.
func TestKeptSchedules(t *testing.T) {
	off := turnedOff()
	for rule, rules := range exposed {
		if off != "" && off != rule {
			continue
		}
		t.Run(string(rule), func(t *testing.T) {
			content, err := os.ReadFile(kept(rule))
			require.NoError(t, err)
			var schedule Schedule
			require.NoError(t, json.Unmarshal(content, &schedule))
			result := simulate(t, schedule)
			if off == rule {
				require.True(t, breaksAny(result, rules), "%s breaks %v\n%s", rule, result.Rules(), strings.Join(result.History, "\n"))
				return
			}
			require.Empty(t, result.Rules(), "%v\n%s", result.Violations, strings.Join(result.History, "\n"))
			require.Len(t, result.Struck, len(schedule.Faults), "each fault of a shrunk schedule strikes")
		})
	}
}

func TestShrinkDropsWhatIsNotNeeded(t *testing.T) {
	t.Parallel()
	s := Draw(1, 100)
	needed := []Fault{s.Faults[13], s.Faults[77]}
	small := Shrink(s, func(s Schedule) bool {
		return s.Transactions > 5 && slices.Contains(s.Faults, needed[0]) && slices.Contains(s.Faults, needed[1])
	})
	require.Equal(t, Schedule{Seed: 1, Transactions: 6, Faults: needed}, small)
}
