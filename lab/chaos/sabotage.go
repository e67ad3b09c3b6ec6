package chaos

import (
	"slices"

	"rds-outbox-demo/internal/sabotage"
)

// Sabotages are the rules that can be turned off, with the faults that expose each: one that no fault meets is never seen.
var Sabotages = []struct {
	Name   sabotage.Rule
	faults []string
}{
	{sabotage.EventAfterCommit, []string{"failpoint-api-before-commit"}},
	{sabotage.ConfirmBeforePut, []string{"kill-relay-unanswered"}},
	{sabotage.StartAtCurrentLSN, []string{"kill-relay"}},
	{sabotage.LoadWithoutSnapshot, []string{"slot-dropped"}},
	{sabotage.RetryOnlyTheFailed, []string{"kinesis-throttled"}},
	{sabotage.IgnoreFailedEntryCount, []string{"events-entry-failures"}},
	{sabotage.AggregateInTwoLanes, []string{"events-entry-failures"}},
	{sabotage.WrongIdentifier, []string{"events-down"}},
	{sabotage.SkipPoisonSilently, []string{"poison-record"}},
	{sabotage.ParkUnanswered, []string{"queue-down"}},
}

// exposing returns the faults for a sabotage; nil when there is no such rule.
func exposing(name string) (faults []fault) {
	for _, s := range Sabotages {
		if string(s.Name) == name {
			for _, kind := range s.faults {
				faults = append(faults, find(kind))
			}
		}
	}
	return faults
}

// hands are the faults of a round's two lanes. A sabotaged round always has those that expose it, beside a few others.
func hands(sabotaged string, service, machine *deck) (a, b []fault) {
	if sabotaged == "" {
		return service.deal(faultsPerLane), machine.deal(faultsPerLane)
	}
	a, b = service.deal(1), machine.deal(1)
	for _, f := range exposing(sabotaged) {
		if isService(f) {
			a = slices.Concat([]fault{f}, a, []fault{f})
		} else {
			b = slices.Concat([]fault{f}, b, []fault{f})
		}
	}
	return a, b
}
