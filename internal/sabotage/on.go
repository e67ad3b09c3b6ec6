//go:build sabotage

package sabotage

import (
	"fmt"
	"os"
	"slices"
)

// Enabled reports whether this build can be sabotaged.
const Enabled = true

// All are the rules that SABOTAGE_RULE may name.
var All = []Rule{
	KeysOff, EventAfterCommit, ConfirmBeforePut, StartAtCurrentLSN, LookOnlyAtStart, NoDrainOnError, LoadWithoutSnapshot, FailoverOff, RetryOnlyTheFailed,
	FixedConcurrency, IgnoreFailedEntryCount, AggregateInTwoLanes, WrongIdentifier, SkipPoisonSilently, ParkUnanswered, InboxOff, ApplyEarly,
}

var off Rule

// A name that is not a rule ends the process, because a run that sabotages nothing would say "not caught".
func init() {
	off = Rule(os.Getenv("SABOTAGE_RULE"))
	if off != "" && !slices.Contains(All, off) {
		fmt.Fprintf(os.Stderr, "SABOTAGE_RULE %q: no such rule\n", off)
		os.Exit(2)
	}
}

// On reports whether the rule is turned off.
func On(r Rule) bool { return r == off }
