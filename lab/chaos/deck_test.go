package chaos

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/chaos/report"
	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

func kindsOf(trials []trial) (all []string) {
	for _, t := range trials {
		all = append(all, t.kind)
	}
	return all
}

func TestDeckDealsEachKindBeforeAnyTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		deal := func() []string {
			d := deck{kinds: machineLane, random: rand.New(rand.NewPCG(seed, 2))}
			var all []string
			for len(all) < 3*len(machineLane) {
				all = append(all, kindsOf(d.deal(rapid.IntRange(1, 8).Draw(t, "hand")))...)
			}
			return all
		}
		dealt := deal()
		want := kindsOf(machineLane)
		slices.Sort(want)
		for from := 0; from+len(want) <= len(dealt); from += len(want) {
			require.Equal(t, want, slices.Sorted(slices.Values(dealt[from:from+len(want)])))
		}
		again := deal()
		n := min(len(dealt), len(again))
		require.Equal(t, dealt[:n], again[:n], "a seed draws the same faults, however they are dealt")
	})
}

func TestKindsAreUnique(t *testing.T) {
	t.Parallel()
	kinds := kindsOf(slices.Concat(serviceLane, machineLane, promoteTrials))
	slices.Sort(kinds)
	require.Greater(t, len(kinds), 50)
	require.Equal(t, kinds, slices.Compact(slices.Clone(kinds)))
	// A run of the default length meets every kind.
	require.LessOrEqual(t, len(serviceLane), 5*servicePerRound)
	require.LessOrEqual(t, len(machineLane), 5*machinePerRound)
	require.LessOrEqual(t, len(besideTrials()), 6*besidePromotions)
	require.LessOrEqual(t, len(promoteTrials), promotionsPerRound)
}

// Nothing but a subscriber in order brings back what is lost behind the bus.
func TestALossBehindTheBusIsOnlyDealtWhereItIsRepaired(t *testing.T) {
	t.Parallel()
	require.Subset(t, kindsOf((&path{config: Config{Seed: 1}}).possible(serviceLane)), kindsOf(lostTrials))
	require.NotContains(t, kindsOf((&path{}).possible(serviceLane)), "rules-lost")
}

// ownWay says of faults of the list which trials do the same in a way of chaos's own, and why.
var ownWay = map[string]struct {
	kinds []string
	why   string
}{
	"stop-postgres": {[]string{"database-kill", "database-stop-immediate"}, "a server that ends without a shutdown has more to recover"},
	"poison":        {[]string{"poison-record"}, "the judge has to know the payload, and there is one more sort of it"},
}

// The page and chaos break the path in the same ways, and differ only in the rates of rules.
func TestEachFaultOfTheListHasATrial(t *testing.T) {
	t.Parallel()
	trials := slices.Concat(serviceLane, machineLane)
	bare := func(rule awslocal.Fault) awslocal.Fault {
		rule.Rate, rule.Seed = 0, 0
		return rule
	}
	var names []string
	for _, f := range faults.Of(&local.Path{}) {
		names = append(names, f.Name)
		tried := func(t trial) bool { return t.fault == f.Name }
		if own, ok := ownWay[f.Name]; ok {
			require.NotEmpty(t, own.why)
			require.Subset(t, kindsOf(trials), own.kinds)
			require.False(t, slices.ContainsFunc(trials, tried), "%s is tried, and needs no reason", f.Name)
			continue
		}
		for _, rule := range f.Rules {
			require.True(t, slices.ContainsFunc(trials, func(t trial) bool { return bare(t.rule) == bare(rule) }), "no trial has the rule %+v of %s", rule, f.Name)
		}
		require.True(t, f.Rules != nil || slices.ContainsFunc(trials, tried), "no trial strikes %s", f.Name)
	}
	for _, one := range trials {
		require.True(t, one.fault == "" || slices.Contains(names, one.fault), "%s strikes %s, which is not in the list", one.kind, one.fault)
	}
	for name := range ownWay {
		require.Contains(t, names, name)
	}
}

// A rule that can be turned off and is not in the list would never be seen to be caught.
func TestEverySabotageIsListedWithFaultsThatExposeIt(t *testing.T) {
	t.Parallel()
	source, err := parser.ParseFile(token.NewFileSet(), "../../internal/sabotage/sabotage.go", nil, 0)
	require.NoError(t, err)
	var rules []string
	ast.Inspect(source, func(n ast.Node) bool {
		if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
			rule, err := strconv.Unquote(text.Value)
			require.NoError(t, err)
			rules = append(rules, rule)
		}
		return true
	})
	var listed []string
	for _, s := range Sabotages {
		listed = append(listed, string(s.Name))
		a, b := hands(string(s.Name), &deck{kinds: serviceLane, random: rand.New(rand.NewPCG(1, 1))}, &deck{kinds: machineLane, random: rand.New(rand.NewPCG(1, 2))})
		require.Contains(t, kindsOf(slices.Concat(a, b)), s.trial)
		of := func(rule string) []report.Violation {
			return []report.Violation{{Violation: judge.Violation{Rule: rule}}}
		}
		for _, rule := range s.breaks {
			_, ok := caught(string(s.Name), append(of(rule), of(ruleRegister)...))
			require.True(t, ok)
			_, ok = caught(string(s.Name), of(rule))
			require.Equal(t, s.unseen != "", ok, "without the registers")
		}
		_, ok := caught(string(s.Name), of(judge.RuleUnknown))
		require.False(t, ok, "accused of something else")
	}
	for _, rule := range Simulated {
		listed = append(listed, string(rule))
	}
	require.ElementsMatch(t, rules, listed)
}

func TestReleaseBuildRefusesToBreak(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, Config{}.Validate(), "make chaos")
}

// A sabotage is not caught when a fault beside it cannot strike because of it.
func TestFaultsOfTheParkingAreNotDealtWhereNothingIsParked(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		a, b := hands("skip-poison-silently",
			&deck{kinds: serviceLane, random: rand.New(rand.NewPCG(seed, 1))}, &deck{kinds: machineLane, random: rand.New(rand.NewPCG(seed, 2))})
		for _, f := range slices.Concat(a, b) {
			require.NotContains(t, f.kind, "queue-")
			require.NotContains(t, f.kind, "-park")
		}
	}
}
