// Package sabotage names the rules that keep every event, so that `make chaos SABOTAGE=<rule>` can turn one off and show that the
// checker notices. A checker that nothing ever fails proves nothing.
//
// A rule costs the path a condition, sabotage.On(sabotage.ConfirmBeforePut), that is false in a release build, where the compiler
// leaves nothing of it. Only with the build tag sabotage does On look at the variable SABOTAGE_RULE.
package sabotage

// Rule is a rule that can be turned off, named by what the code then does wrong. Its text is also what SABOTAGE_RULE takes.
type Rule string

// The rules, in the order in which an event meets them.
const (
	KeysOff                Rule = "keys-off"                  // ① an Idempotency-Key is not looked at
	EventAfterCommit       Rule = "event-after-commit"        // ② the event is written after the commit of its change
	ConfirmBeforePut       Rule = "confirm-before-put"        // ③ a commit is confirmed before Kinesis has accepted it
	StartAtCurrentLSN      Rule = "start-at-current-lsn"      // ③ streaming begins at "now" instead of at the confirmed position
	LookOnlyAtStart        Rule = "look-only-at-start"        // ③ the publication is looked at before streaming, and relied on from then on
	NoDrainOnError         Rule = "no-drain-on-error"         // ③ an error ends the session before what was accepted is confirmed
	LoadWithoutSnapshot    Rule = "load-without-snapshot"     // ③ the slot is made after the load, not at the load's snapshot
	FailoverOff            Rule = "failover-off"              // ③ the slot is not made a failover slot
	RetryOnlyTheFailed     Rule = "retry-only-the-failed"     // ④ a failed record is retried while its successors go on
	FixedConcurrency       Rule = "fixed-concurrency"         // ④ ⑥ calls keep their number, size and timeout, however long the answers take
	IgnoreFailedEntryCount Rule = "ignore-failed-entry-count" // ⑥ a PutEvents call that was answered counts as accepted whole
	AggregateInTwoLanes    Rule = "aggregate-in-two-lanes"    // ⑥ two entries of one aggregate may be unanswered at once
	WrongIdentifier        Rule = "wrong-identifier"          // ⑤ the highest failed record is returned instead of the lowest
	SkipPoisonSilently     Rule = "skip-poison-silently"      // ⑤ a record that cannot be decoded is passed over
	ParkUnanswered         Rule = "park-unanswered"           // ⑤ a failed SendMessage to the failure queue counts as parked
	InboxOff               Rule = "inbox-off"                 // ⑥ a subscriber takes every delivery for a new event
	ApplyEarly             Rule = "apply-early"               // ⑥ a subscriber in order applies an event that came too early
)
