package chaos

import (
	"slices"
	"strings"

	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/lab/chaos/report"
	"rds-outbox-demo/lab/judge"
)

// lossOrDisorder is what a loss looks like. Where a slot is dropped after it, the load of the new slot finds the rows, and they come late.
var lossOrDisorder = []string{judge.RuleLost, judge.RuleReordered}

// ruleRegister is what package register has to object to, in addition to the rules of package
// judge.
const ruleRegister = "register"

// Sabotages are the rules that can be turned off, with the trial that exposes each, since one that no trial meets is never seen, and the
// promises that it breaks, since one that is accused of something else is not caught.
var Sabotages = []struct {
	Name   sabotage.Rule
	Says   string   // what the path then does, without quotation marks: scripts read it
	trial  string   // kind of the trial
	breaks []string // judge's rules
	// unseen says why no register of versions can show the damage. It is empty where the registers
	// have to object as well.
	unseen string
}{
	{sabotage.KeysOff, "an Idempotency-Key is not looked at", "failpoint-api-after-commit", []string{judge.RuleWrittenTwice}, ""},
	{sabotage.EventAfterCommit, "the event is written after the commit of its change", "failpoint-api-before-commit", []string{judge.RuleCarEvent}, ""},
	{sabotage.ConfirmBeforePut, "the relay confirms a commit before Kinesis has accepted it", "kill-relay-unanswered", lossOrDisorder, ""},
	{sabotage.StartAtCurrentLSN, "the relay streams from the newest position, not from the confirmed one", "kill-relay", lossOrDisorder, ""},
	{sabotage.LookOnlyAtStart, "the relay looks at the publication before streaming, and never again", "ddl-publication-without-table", lossOrDisorder, ""},
	{sabotage.NoDrainOnError, "an error ends the session before what Kinesis accepted is confirmed", "ddl-column-renamed", []string{judge.RuleStuck}, "how often a version is delivered again is no question of order"},
	{sabotage.LoadWithoutSnapshot, "the slot is made after the initial load, not at its snapshot", "slot-dropped", lossOrDisorder, ""},
	{sabotage.FailoverOff, "the slot is not made a failover slot, so a promoted standby does not have it", "promote-killed", []string{judge.RuleReloaded}, "a version that comes again after the last one is a duplicate"},
	{sabotage.RetryOnlyTheFailed, "a failed record is retried while its successors go on", "kinesis-throttled", []string{judge.RuleReordered}, ""},
	{sabotage.IgnoreFailedEntryCount, "a PutEvents call that was answered counts as accepted whole", "events-entry-failures", lossOrDisorder, ""},
	{sabotage.AggregateInTwoLanes, "two entries of one aggregate may be unanswered at once", "events-entry-failures", []string{judge.RuleReordered}, ""},
	{sabotage.WrongIdentifier, "the consumer returns the highest failed record, not the lowest", "events-down", lossOrDisorder, ""},
	{sabotage.SkipPoisonSilently, "the consumer skips a record that it cannot decode, and parks nothing", "poison-record", []string{judge.RulePoisonLost}, ""},
	{sabotage.ParkUnanswered, "a failed SendMessage to the failure queue counts as parked", "queue-down", []string{judge.RulePoisonLost}, ""},
	{sabotage.InboxOff, "a subscriber counts every delivery as a new event", "rules-duplicates", []string{judge.RuleCarStats}, "totals of a subscriber are no version of an aggregate"},
	{sabotage.ApplyEarly, "a subscriber in order counts an event that came too early", "rules-disorder", []string{judge.RuleCarStats}, "a register has the order of the bus"},
}

// Simulated are the rules that a chaos run cannot judge. Without them events come late, and how
// late is too late depends on the machine. TestTheSimulationsCatchFixedConcurrency catches them, in
// virtual time.
var Simulated = []sabotage.Rule{sabotage.FixedConcurrency}

// caught returns the violation that the sabotage caused. Both judges have to object, unless a
// register cannot show it.
func caught(name string, violations []report.Violation) (_ report.Violation, ok bool) {
	for _, s := range Sabotages {
		i := slices.IndexFunc(violations, func(v report.Violation) bool { return slices.Contains(s.breaks, v.Rule) })
		second := slices.ContainsFunc(violations, func(v report.Violation) bool { return v.Rule == ruleRegister })
		if string(s.Name) == name && i >= 0 && (second || s.unseen != "") {
			return violations[i], true
		}
	}
	return report.Violation{}, false
}

// trialFor returns the trial that exposes a sabotage, and false when there is no such rule.
func trialFor(name string) (trial, bool) {
	for _, s := range Sabotages {
		if string(s.Name) == name {
			return find(s.trial), true
		}
	}
	return trial{}, false
}

// dealOther deals a trial that is possible although the rule is off. Where poison is dropped, a trial of the parking would wait for ever.
func dealOther(sabotaged string, d *deck) []trial {
	for {
		hand := d.deal(1)
		parking := strings.HasPrefix(hand[0].kind, "queue-") || strings.HasSuffix(hand[0].kind, "-park")
		if !parking || sabotaged != string(sabotage.SkipPoisonSilently) {
			return hand
		}
	}
}

// hands are the trials of a round's two lanes. A sabotaged round always has the one that exposes it, beside a few others.
func hands(sabotaged string, service, machine *deck) (a, b []trial) {
	switch {
	case sabotaged == "" && isPromotion(machine.kinds[0]):
		return service.deal(besidePromotions), machine.deal(promotionsPerRound)
	case sabotaged == "":
		return service.deal(servicePerRound), machine.deal(machinePerRound)
	}
	a, b = dealOther(sabotaged, service), dealOther(sabotaged, machine)
	if t, _ := trialFor(sabotaged); isService(t) {
		a = slices.Concat([]trial{t}, a, []trial{t})
	} else {
		b = slices.Concat([]trial{t}, b, []trial{t})
	}
	return a, b
}
