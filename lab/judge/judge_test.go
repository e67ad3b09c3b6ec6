package judge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
)

func TestAcceptsARoundThatKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := generate(rt)
		v := judge.Judge(r.Round)
		require.Empty(rt, v.Violations)
		require.Zero(rt, v.Lost+v.Reordered+v.Wrong)
		require.Equal(rt, len(r.Rows), v.Events)
		require.Equal(rt, len(r.Arrivals)-(len(r.Rows)-1), v.Duplicates, "one row is poison and never arrives")
		require.Equal(rt, 3, v.Parked)
		require.Equal(rt, []judge.Recovery{{Kind: "kill-relay", Took: v.Recoveries[0].Took}}, v.Recoveries)
		require.Positive(rt, v.Recoveries[0].Took)
		require.Positive(rt, v.LongestGap)
	})
}

// damages break one promise each. The judge must name its rule and no other.
var damages = map[string]struct {
	rule string
	do   func(*rapid.T, *round)
}{
	"AnEventNeverArrives": {judge.RuleLost, func(rt *rapid.T, r *round) { r.drop(r.anyArrived(rt).ID) }},
	"TwoVersionsChangePlaces": {judge.RuleReordered, func(rt *rapid.T, r *round) {
		one, two := r.twoVersions(rt)
		i, j := r.firstOf(one), r.firstOf(two)
		r.Arrivals[i], r.Arrivals[j] = r.Arrivals[j], r.Arrivals[i]
	}},
	"AChangeIsCountedTwice": {judge.RuleCarStats, func(_ *rapid.T, r *round) {
		r.Stats[0].Changes++
	}},
	"ACarIsCountedTwice": {judge.RuleCarStats, func(_ *rapid.T, r *round) {
		r.Stats[0].Cars++
	}},
	"ARefusedChangeHoldsUpWhatIsBeforeIt": {judge.RuleStuck, func(_ *rapid.T, r *round) {
		r.Refusals = []judge.Refusal{{EventID: r.Rows[0].ID, Sessions: 1, Confirmed: true}, {EventID: r.Rows[1].ID, Sessions: 10}}
	}},
	"APromotionLosesTheSlot": {judge.RuleReloaded, func(_ *rapid.T, r *round) {
		r.Promotions = []judge.Promotion{{SlotKept: true}, {}}
	}},
	"NothingIsCounted": {judge.RuleCarStats, func(_ *rapid.T, r *round) {
		r.Stats = r.Stats[:1]
		r.Stats[0].Kind = "Nobody"
	}},
	"ADuplicateDiffers": {judge.RuleDuplicateDiffers, func(_ *rapid.T, r *round) {
		last := r.entry(r.Rows[0])
		last.Time = last.Time.Add(time.Millisecond)
		r.Arrivals = append(r.Arrivals, last)
	}},
	"ADuplicateOfAnEarlierRoundDiffers": {judge.RuleDuplicateDiffers, func(_ *rapid.T, r *round) {
		r.Arrivals[len(r.Arrivals)-1].DetailType = "Other"
	}},
	"ARolledBackEventArrives": {judge.RuleRolledBack, func(_ *rapid.T, r *round) {
		row := r.Rows[0]
		row.ID, row.AggregateID = r.written(judge.RolledBack), "note-2"
		r.Arrivals = append(r.Arrivals, r.entry(row))
	}},
	"ARolledBackEventIsInTheTable": {judge.RuleRolledBack, func(_ *rapid.T, r *round) {
		r.row("Note", "note-2", 1, "Noted", `{}`).ID = r.written(judge.RolledBack)
	}},
	"AnUnansweredCommitArrivesWithoutARow": {judge.RuleUnknown, func(_ *rapid.T, r *round) {
		row := r.Rows[0]
		row.ID = r.Written[len(r.Written)-1].EventID
		r.Arrivals = append(r.Arrivals, r.entry(row), r.entry(row))
	}},
	"ACommittedEventIsNotInTheTable": {judge.RuleUpdateLost, func(_ *rapid.T, r *round) {
		r.Written = append(r.Written, judge.Written{EventID: r.id(), Outcome: judge.Committed})
	}},
	"AnUnknownEventArrives": {judge.RuleUnknown, func(_ *rapid.T, r *round) {
		row := r.Rows[0]
		row.ID = r.id()
		r.Arrivals = append(r.Arrivals, r.entry(row))
	}},
	"AnEntryHasNoEventID": {judge.RuleUnknown, func(_ *rapid.T, r *round) {
		r.Arrivals = append(r.Arrivals, awslocal.BusEvent{Detail: json.RawMessage(`{"eventId":null}`)})
	}},
	"AnEntryBreaksTheContract": {judge.RuleContract, func(rt *rapid.T, r *round) {
		id := r.anyArrived(rt).ID
		for i := range r.Arrivals { // all copies alike
			if bytes.Contains(r.Arrivals[i].Detail, []byte(id.String())) {
				r.Arrivals[i].Source += "x"
			}
		}
	}},
	"APoisonRecordIsNotParked":  {judge.RulePoisonLost, func(_ *rapid.T, r *round) { r.Parked = slices.Delete(r.Parked, 1, 3) }},
	"ABigPoisonRecordIsMissing": {judge.RulePoisonLost, func(_ *rapid.T, r *round) { r.Parked = slices.Delete(r.Parked, 3, 4) }},
	"APoisonEventIsNotParked":   {judge.RulePoisonLost, func(_ *rapid.T, r *round) { r.Parked = r.Parked[1:] }},
	"APoisonRecordIsCutShort": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked = slices.Delete(r.Parked, 2, 3)
		r.Parked[1] = parked("", r.Poison[1].Payload[:5], 5, false)
	}},
	"ABigPoisonRecordIsCutTooShort": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked[3] = parked("", r.Poison[2].Payload[:100], len(r.Poison[2].Payload), true)
	}},
	"APoisonRecordHasAnotherSize": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked = slices.Delete(r.Parked, 2, 3)
		r.Parked[1] = parked("", r.Poison[1].Payload, 9, false)
	}},
	"ABigPoisonRecordHasAnotherSize": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked[3] = parked("", r.Poison[2].Payload[:64<<10], 70_000, true)
	}},
	"APoisonEventIsParkedWithOtherData": {judge.RulePoisonPayload, func(rt *rapid.T, r *round) {
		id, row := r.poisoned().ID, r.poisoned()
		rapid.SampledFrom([]func(){
			func() { row.Data = json.RawMessage(`{}`) }, func() { row.ID = r.id() }, func() { row.Version++ }, func() { row.AggregateID = "x" },
			func() { row.AggregateType = "x" }, func() { row.EventType = "x" },
		}).Draw(rt, "change")()
		r.Parked[0] = bytes.Replace(parkedEvent(row), []byte(`"eventId":"`+row.ID.String()), []byte(`"eventId":"`+id.String()), 1)
	}},
	"APoisonEventHasAnotherSize": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked[0] = bytes.Replace(r.Parked[0], []byte(`"size":`), []byte(`"size":1`), 1)
	}},
	"APoisonEventIsCutShort": {judge.RulePoisonPayload, func(_ *rapid.T, r *round) {
		r.Parked[0] = parked(r.poisoned().ID.String(), []byte(`{"data":{`), 500, true)
	}},
	"APoisonEventArrives": {judge.RulePoisonPublished, func(_ *rapid.T, r *round) {
		r.Arrivals = append(r.Arrivals, r.entry(r.poisoned()))
	}},
	"AGoodEventIsParked":   {judge.RuleParked, func(rt *rapid.T, r *round) { r.Parked = append(r.Parked, parkedEvent(r.anyArrived(rt))) }},
	"AGoodRecordIsParked":  {judge.RuleParked, func(_ *rapid.T, r *round) { r.Parked = append(r.Parked, parked("", []byte("good"), 4, false)) }},
	"AnUnknownEventParked": {judge.RuleParked, func(_ *rapid.T, r *round) { r.Parked = append(r.Parked, parked(r.id().String(), nil, 0, false)) }},
	"LambdaGaveUpOnABatch": {judge.RuleParked, func(_ *rapid.T, r *round) { r.Parked = append(r.Parked, []byte(`{"requestContext":{}}`)) }},
	"ACarOfA201IsForgotten": {judge.RulePromisedCar, func(rt *rapid.T, r *round) {
		r.Cars = slices.Delete(r.Cars, 0, 1)
	}},
	"AMaybeCarHasEventsOnly": {judge.RuleCarEvent, func(_ *rapid.T, r *round) {
		car := r.Cars[0].ID.String()
		r.Cars = slices.Delete(r.Cars, 0, 1)
		for i := range r.Requests {
			if r.Requests[i].CarID == car {
				r.Requests[i].Answer = judge.Maybe
			}
		}
	}},
	"ACarHasNoEvents": {judge.RuleCarEvent, func(_ *rapid.T, r *round) {
		r.Cars = append(r.Cars, judge.Car{ID: r.id(), Version: 1, State: r.Cars[0].State})
	}},
	"ACarHasAnotherValue": {judge.RuleCarEvent, func(rt *rapid.T, r *round) { setMember(r, anyMember(rt, r), `"other"`) }},
	"ACarHasNoValue":      {judge.RuleCarEvent, func(rt *rapid.T, r *round) { setMember(r, anyMember(rt, r), "null") }},
	"ACarHasAMemberMore":  {judge.RuleCarEvent, func(_ *rapid.T, r *round) { setMember(r, "more", "null") }},
	"ACarLacksAMember": {judge.RuleCarEvent, func(rt *rapid.T, r *round) {
		all := members(r.Cars[0])
		delete(all, anyMember(rt, r))
		r.Cars[0].State = json.RawMessage(marshal(all))
	}},
	"ACarIsAheadOfItsEvents": {judge.RuleCarEvent, func(_ *rapid.T, r *round) { r.Cars[0].Version++ }},
	"ACarIsBehindItsEvents":  {judge.RuleCarEvent, func(_ *rapid.T, r *round) { r.Cars[0].Version-- }},
	"ACarIsOlderThanItsEvents": {judge.RuleCarEvent, func(rt *rapid.T, r *round) {
		created, err := time.Parse(time.RFC3339Nano, members(r.Cars[0])["createdAt"].(string))
		require.NoError(rt, err)
		setMember(r, "createdAt", created.Add(-time.Microsecond).Format(`"`+time.RFC3339Nano+`"`))
	}},
	"AVersionIsMissing": {judge.RuleCarEvent, func(rt *rapid.T, r *round) {
		r.update(rt, 0, "last-", judge.Done)
		r.Arrivals = append(r.Arrivals, r.entry(r.Rows[len(r.Rows)-1]))
		r.forget(func(row judge.Row) bool { return strings.Contains(string(row.Data), `"maybe-"`) })
	}},
	"AVersionIsSkipped": {judge.RuleCarEvent, func(rt *rapid.T, r *round) {
		r.update(rt, 0, "last-", judge.Done)
		last := &r.Rows[len(r.Rows)-1]
		last.Version++
		r.Arrivals = append(r.Arrivals, r.entry(*last))
	}},
	"AnUpdateIsGone": {judge.RuleUpdateLost, func(_ *rapid.T, r *round) {
		// The last event of a car whose commit did not survive.
		r.forget(func(row judge.Row) bool { return strings.Contains(string(row.Data), `"after-"`) })
		r.Cars[1].Version--
		for _, row := range r.Rows { // which its event before that is
			if row.AggregateID == r.Cars[1].ID.String() && row.Version == r.Cars[1].Version {
				all := members(judge.Car{State: row.Data})
				delete(all, "updatedAt")
				r.Cars[1].State = json.RawMessage(marshal(all))
			}
		}
	}},
	"AnAnswerDiffersFromItsEvent": {judge.RuleCarEvent, func(_ *rapid.T, r *round) {
		r.Requests[0].Car = json.RawMessage(strings.Replace(string(r.Requests[0].Car), "2026", "2025", 1))
	}},
	"AnUpdateChangesAnotherCar": {judge.RuleCarEvent, func(_ *rapid.T, r *round) {
		r.requestWith("maybe-").CarID = r.Cars[1].ID.String()
	}},
	"AnUpdateWasACreate": {judge.RuleCarEvent, func(_ *rapid.T, r *round) { r.requestWith("maybe-").Op = judge.Create }},
	"ACreateWasAnUpdate": {judge.RuleCarEvent, func(_ *rapid.T, r *round) { r.requestWith("maybe-created-").Op = judge.Update }},
	"ARefusedRequestIsWritten": {judge.RuleRefusedWritten, func(_ *rapid.T, r *round) {
		r.requestWith("maybe-").Answer = judge.Refused
	}},
	"AnUnansweredRequestIsWrittenTwice": {judge.RuleWrittenTwice, func(rt *rapid.T, r *round) {
		before := len(r.Requests)
		r.update(rt, 0, "maybe-", judge.Maybe)
		r.Requests = r.Requests[:before]
		r.Arrivals = append(r.Arrivals, r.entry(r.Rows[len(r.Rows)-1]))
	}},
}

func TestNamesTheBrokenPromise(t *testing.T) {
	t.Parallel()
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for v := range verdicts(damage.do) {
				require.NotEmpty(t, v.Violations)
				for _, violation := range v.Violations {
					require.Equal(t, damage.rule, violation.Rule, violation.Text)
				}
				counts := map[string]int{judge.RuleReordered: v.Reordered}
				for _, lost := range []string{judge.RuleLost, judge.RulePoisonLost, judge.RulePromisedCar, judge.RuleUpdateLost} {
					counts[lost] = v.Lost
				}
				count, ok := counts[damage.rule]
				if !ok {
					count = v.Wrong
				}
				require.Len(t, v.Violations, count)
				require.Equal(t, count, v.Lost+v.Reordered+v.Wrong)
			}
		})
	}
}

// verdicts returns the verdicts on some damaged rounds. They are always the same rounds, and fewer than rapid.Check makes, because there are
// many damages.
func verdicts(damage func(*rapid.T, *round)) iter.Seq[judge.Verdict] {
	return func(yield func(judge.Verdict) bool) {
		rounds := rapid.Custom(func(rt *rapid.T) *round {
			r := generate(rt)
			damage(rt, r)
			return r
		})
		for seed := range 6 {
			if !yield(judge.Judge(rounds.Example(seed).Round)) {
				return
			}
		}
	}
}

func TestReportsEachThingOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		want []string // rules
		do   func(*round)
	}{
		"AnUnknownEventAndItsDuplicate": {[]string{judge.RuleUnknown}, func(r *round) {
			row := r.Rows[0]
			row.ID = r.id()
			r.Arrivals = append(r.Arrivals, r.entry(row), r.entry(row))
		}},
		"ACarOfSeveralAnswers": {[]string{judge.RulePromisedCar}, func(r *round) { r.Cars = r.Cars[1:] }},
		"ARolledBackEventInTheTableAndOnTheBus": {[]string{judge.RuleRolledBack, judge.RuleRolledBack}, func(r *round) {
			row := r.row("Note", "note-2", 1, "Noted", `{}`)
			row.ID = r.written(judge.RolledBack)
			r.Arrivals = append(r.Arrivals, r.entry(*row))
		}},
		"AGoodEventParkedInsteadOfPublished": {[]string{judge.RuleParked, judge.RuleLost}, func(r *round) {
			r.Parked = append(r.Parked, parkedEvent(r.Rows[0]))
			r.drop(r.Rows[0].ID)
		}},
		"APieceOfPoisonBesideTheWhole": {[]string{judge.RuleParked}, func(r *round) {
			r.Parked = append(r.Parked, parked("", r.Poison[1].Payload[:5], 5, false))
		}},
		"UnknownEventsAndRecordsInTheFirstRound": {[]string{judge.RuleUnknown, judge.RuleUnknown, judge.RuleParked, judge.RuleParked}, func(r *round) {
			r.Earlier = judge.Memory{} // what came before it is unknown now
		}},
		"AGoodRecordParkedAndPoisonMissing": {[]string{judge.RuleParked, judge.RulePoisonLost}, func(r *round) {
			r.Parked[3] = parked("", []byte(`{"data":{}}`), 11, false)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for v := range verdicts(func(_ *rapid.T, r *round) { test.do(r) }) {
				var rules []string
				for _, violation := range v.Violations {
					rules = append(rules, violation.Rule)
				}
				require.ElementsMatch(t, test.want, rules)
			}
		})
	}
}

func TestNamesWhatItFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := generate(rt)
		r.drop(r.Rows[0].ID)
		r.Parked = append(r.Parked, []byte(`{"requestContext":{"condition":"RetryAttemptsExhausted"}}`))
		require.Equal(rt, []judge.Violation{
			{Rule: judge.RuleParked, Text: "a message in the failure queue is no parked record: \"{\\\"requestContext\\\":{\\\"condition\\\":\\\"RetryAttemptsExhausted\\\"}}\""},
			{Rule: judge.RuleLost, Text: "event " + r.Rows[0].ID.String() + " (Car " + r.Rows[0].AggregateID + " version 1) is not on the bus"},
		}, judge.Judge(r.Round).Violations)
	})
}

// A promotion that keeps the slot may still send too much again.
func TestDuplicatesOfAPromotionAreBounded(t *testing.T) {
	t.Parallel()
	r := rapid.Custom(generate).Example(1)
	r.Promotions = []judge.Promotion{{SlotKept: true}, {SlotKept: true}}
	before := judge.Judge(r.Round)
	require.Empty(t, before.Violations)
	for range 2*judge.MaxDuplicates - before.Duplicates {
		r.Arrivals = append(r.Arrivals, r.Arrivals[0])
	}
	require.Empty(t, judge.Judge(r.Round).Violations)
	r.Arrivals = append(r.Arrivals, r.Arrivals[0])
	violations := judge.Judge(r.Round).Violations
	require.Len(t, violations, 1)
	require.Equal(t, judge.RuleReloaded, violations[0].Rule)
}

// Each rule is broken by a damage. A rule that no damage breaks would be a promise that is never judged.
func TestEveryRuleHasADamage(t *testing.T) {
	t.Parallel()
	broken := map[string]bool{}
	for _, damage := range damages {
		broken[damage.rule] = true
	}
	require.Len(t, broken, 18)
}

func (r *round) anyArrived(rt *rapid.T) judge.Row {
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row judge.Row) bool { return r.firstOf(row.ID) < 0 })
	return rapid.SampledFrom(rows).Draw(rt, "row")
}

// twoVersions are two neighbouring versions of one aggregate that have arrived.
func (r *round) twoVersions(rt *rapid.T) (one, two uuid.UUID) {
	byVersion := map[string]map[int64]uuid.UUID{}
	for _, row := range r.Rows {
		if byVersion[row.AggregateID] == nil {
			byVersion[row.AggregateID] = map[int64]uuid.UUID{}
		}
		byVersion[row.AggregateID][row.Version] = row.ID
	}
	versions := byVersion[rapid.SampledFrom([]string{"note-1", r.Cars[0].ID.String()}).Draw(rt, "aggregate")]
	lower := int64(rapid.IntRange(1, len(versions)-1).Draw(rt, "version"))
	return versions[lower], versions[lower+1]
}

func (r *round) firstOf(id uuid.UUID) int {
	return slices.IndexFunc(r.Arrivals, func(e awslocal.BusEvent) bool { return bytes.Contains(e.Detail, []byte(id.String())) })
}

func (r *round) drop(id uuid.UUID) {
	r.Arrivals = slices.DeleteFunc(r.Arrivals, func(e awslocal.BusEvent) bool { return bytes.Contains(e.Detail, []byte(id.String())) })
}

// forget takes rows out of the table and off the bus.
func (r *round) forget(which func(judge.Row) bool) {
	for _, row := range r.Rows {
		if which(row) {
			r.drop(row.ID)
		}
	}
	r.Rows = slices.DeleteFunc(r.Rows, which)
}

func (r *round) written(outcome string) uuid.UUID {
	return r.Written[slices.IndexFunc(r.Written, func(w judge.Written) bool { return w.Outcome == outcome })].EventID
}

func (r *round) poisoned() judge.Row {
	return r.Rows[slices.IndexFunc(r.Rows, func(row judge.Row) bool { return strings.Contains(string(row.Data), `"poisoned-"`) })]
}

func (r *round) requestWith(token string) *judge.Request {
	return &r.Requests[slices.IndexFunc(r.Requests, func(q judge.Request) bool { return q.Token == token })]
}

// anyMember returns the name of a member of the first car's state.
func anyMember(rt *rapid.T, r *round) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(members(r.Cars[0])))).Draw(rt, "member")
}

func setMember(r *round, name, value string) { set(&r.Cars[0], fmt.Sprintf("{%q:%s}", name, value)) }
