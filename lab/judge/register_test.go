package judge_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/judge/register"
)

func TestRegistersExplainARoundThatKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) { require.Empty(rt, register.Check(generate(rt).Round)) })
}

// noRegister are the rules that no history of versions shows. They are about the content of an event or of a car, about the totals of a
// subscriber, about the failure queue of what is not poison, or about how often something comes again.
var noRegister = []string{
	judge.RuleCarStats, judge.RuleContract, judge.RuleDuplicateDiffers, judge.RulePoisonPayload, judge.RuleParked, judge.RuleStuck, judge.RuleReloaded,
}

// contentOnly are the damages of other rules that change a content and no version.
var contentOnly = []string{
	"ACarHasAnotherValue", "ACarHasNoValue", "ACarHasAMemberMore", "ACarLacksAMember", "ACarIsOlderThanItsEvents",
	"AnAnswerDiffersFromItsEvent", "AnUpdateChangesAnotherCar", "AnUpdateWasACreate", "ACreateWasAnUpdate",
}

// Both judges notice the same damage, and neither knows how the other looks for it.
func TestRegistersNoticeWhatTheJudgeNotices(t *testing.T) {
	t.Parallel()
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blind := slices.Contains(noRegister, damage.rule) || slices.Contains(contentOnly, name)
			for seed := range 5 {
				r := rapid.Custom(func(rt *rapid.T) *round {
					r := generate(rt)
					damage.do(rt, r)
					return r
				}).Example(seed)
				require.Equal(t, blind, len(register.Check(r.Round)) == 0, "%s", register.Check(r.Round))
			}
		})
	}
}

// Only the registers see that the order of the versions contradicts the order of the requests.
func TestRegistersSeeTheOrderOfRequests(t *testing.T) {
	t.Parallel()
	for seed := range 15 {
		r := rapid.Custom(func(rt *rapid.T) *round {
			r := generate(rt)
			one, two := r.requestWith("c0-1-"), r.requestWith("c0-2-")
			one.Span, two.Span = two.Span, one.Span
			return r
		}).Example(seed)
		require.Empty(t, judge.Judge(r.Round).Violations)
		require.Len(t, register.Check(r.Round), 1)
	}
}
