package chaos

import (
	"slices"
	"strings"

	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/lab/chaos/report"
	"rds-outbox-demo/lab/judge"
)

// late: where a slot is dropped behind a loss, the new one's load finds the rows, and what was lost comes late.
var late = []string{judge.RuleLost, judge.RuleReordered}

// ruleRegister is what package register has to object to, in addition to the rules of package
// judge.
const ruleRegister = "register"

// Sabotages are the rules that can be turned off, with the fault that exposes each, since one that no fault meets is never seen, and the
// promises that it breaks, since one that is accused of something else is not caught.
var Sabotages = []struct {
	Name   sabotage.Rule
	fault  string
	breaks []string // judge's rules
	// unseen says why no register of versions can show the damage. It is empty where the registers
	// have to object as well.
	unseen string
}{
	{sabotage.KeysOff, "failpoint-api-after-commit", []string{judge.RuleWrittenTwice}, ""},
	{sabotage.EventAfterCommit, "failpoint-api-before-commit", []string{judge.RuleCarEvent}, ""},
	{sabotage.ConfirmBeforePut, "kill-relay-unanswered", late, ""},
	{sabotage.StartAtCurrentLSN, "kill-relay", late, ""},
	{sabotage.LookOnlyAtStart, "ddl-publication-without-table", late, ""},
	{sabotage.NoDrainOnError, "ddl-column-renamed", []string{judge.RuleStuck}, "how often a version is delivered again is no question of order"},
	{sabotage.LoadWithoutSnapshot, "slot-dropped", late, ""},
	{sabotage.RetryOnlyTheFailed, "kinesis-throttled", []string{judge.RuleReordered}, ""},
	{sabotage.IgnoreFailedEntryCount, "events-entry-failures", late, ""},
	{sabotage.AggregateInTwoLanes, "events-entry-failures", []string{judge.RuleReordered}, ""},
	{sabotage.WrongIdentifier, "events-down", late, ""},
	{sabotage.SkipPoisonSilently, "poison-record", []string{judge.RulePoisonLost}, ""},
	{sabotage.ParkUnanswered, "queue-down", []string{judge.RulePoisonLost}, ""},
	{sabotage.InboxOff, "rules-duplicates", []string{judge.RuleCarStats}, "totals of a subscriber are no version of an aggregate"},
}

// Simulated are the rules that a chaos run cannot judge. Without them events come late, and how
// late is too late depends on the machine. TestTheSimulationsCatchFixedConcurrency catches them, in
// virtual time.
var Simulated = []sabotage.Rule{sabotage.FixedConcurrency}

// caught returns the violation that the sabotage caused. Both judges have to object, unless a
// register cannot show it.
func caught(name string, violations []report.Violation) (report.Violation, bool) {
	for _, s := range Sabotages {
		if string(s.Name) != name {
			continue
		}
		i := slices.IndexFunc(violations, func(v report.Violation) bool { return slices.Contains(s.breaks, v.Rule) })
		second := slices.ContainsFunc(violations, func(v report.Violation) bool { return v.Rule == ruleRegister })
		if i >= 0 && (second || s.unseen != "") {
			return violations[i], true
		}
	}
	return report.Violation{}, false
}

// exposing returns the fault for a sabotage; false when there is no such rule.
func exposing(name string) (fault, bool) {
	for _, s := range Sabotages {
		if string(s.Name) == name {
			return find(s.fault), true
		}
	}
	return fault{}, false
}

// beside deals a fault that can strike although the rule is off: where poison is dropped, nothing meets whoever parks it.
func beside(sabotaged string, d *deck) []fault {
	for {
		hand := d.deal(1)
		parking := strings.HasPrefix(hand[0].kind, "queue-") || strings.HasSuffix(hand[0].kind, "-park")
		if !parking || sabotaged != string(sabotage.SkipPoisonSilently) {
			return hand
		}
	}
}

// hands are the faults of a round's two lanes. A sabotaged round always has the one that exposes it, beside a few others.
func hands(sabotaged string, service, machine *deck) (a, b []fault) {
	if sabotaged == "" {
		return service.deal(servicePerRound), machine.deal(machinePerRound)
	}
	a, b = beside(sabotaged, service), beside(sabotaged, machine)
	if f, _ := exposing(sabotaged); isService(f) {
		a = slices.Concat([]fault{f}, a, []fault{f})
	} else {
		b = slices.Concat([]fault{f}, b, []fault{f})
	}
	return a, b
}
