// Package inbox is for subscribers of the bus. It processes each event once, and sees which events are missing or out of order.
//
// In: an event as the bus delivers it (ParseEvent), and the subscriber's own transaction. Out: a call of the subscriber's function in
// that transaction, at most once per event id, and a Verdict on where the event stands among those of its aggregate.
//
// Delivery is at least once and in no order. The path, EventBridge and SQS each repeat a delivery that got no answer, and an operator may
// replay events. The inbox turns this into exactly once for results that are written in the same transaction, and for nothing else. An
// e-mail that the function sends is sent again when the commit fails. So the inbox's tables (sql/migrations/00006_inbox.sql and
// 00009_inbox_held.sql) have to be in the database of the subscriber's results.
//
// Once processes events as they come, or refuses those that are out of order. InOrder holds an early event in a table, and processes it in
// its turn. docs/adr/0025 says how, and what it costs.
//
// The transaction's session must have synchronous_commit on, which is PostgreSQL's default. Otherwise a crash of the server can forget a
// commit whose message is already deleted, and nothing brings the event again. It must also see every row of the three tables. A role may
// carry other settings, so fix them where you connect, as internal/pgsession does.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/sabotage"
)

// Verdict is where an event stands among those of its aggregate that the subscriber has processed.
type Verdict string

// The verdicts.
const (
	New       Verdict = "new"       // the next version
	Duplicate Verdict = "duplicate" // processed already
	Gap       Verdict = "gap"       // earlier versions are missing. They are late, or older than the subscriber
	Late      Verdict = "late"      // a higher version was processed before it
	Held      Verdict = "held"      // of InOrder: the event waits in the table for earlier versions
)

// Policy is what happens to an event that is out of order (Gap, Late).
type Policy int

// The policies.
const (
	// Apply processes the event and passes the verdict to the function. It suits functions that can tell by the verdict what is still true.
	// For example, an event that carries the whole aggregate makes late earlier events irrelevant.
	Apply Policy = iota
	// Reject returns a *RejectedError so that the message is delivered again. It succeeds once the missing versions are processed, or ends
	// in the failure queue. Reject suits functions that need every version in order. They need every event of the aggregate, so their rule
	// must not filter on detail-type. A subscriber that is younger than the aggregates first needs a replay of the older events.
	Reject
)

// Subscriber names who processes. Each subscriber processes an event once.
type Subscriber struct {
	Name   string // 1-100 bytes
	Policy Policy
}

// RejectedError says that policy Reject refused the event. Nothing was written. Roll back and leave the message to its redelivery.
type RejectedError struct {
	Event   Event
	Verdict Verdict // Gap or Late
	Seen    int64   // highest version processed; 0 for none
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("event %s of %s %s is out of order (%s): version %d, and the highest processed is %d",
		e.Event.ID, e.Event.AggregateType, e.Event.AggregateID, e.Verdict, e.Event.Version, e.Seen)
}

// Once calls fn for an event that the subscriber has not processed, and stores that it is processed. It does both in tx, which the caller
// commits. For a Duplicate it does not call fn and returns nil. Roll back after any error, including fn's own and a *RejectedError. The
// event then counts as not processed.
//
// Once locks the aggregate until tx ends, so other transactions of the subscriber wait with the aggregate's events. A transaction that
// processes several events must take them in the order of their aggregates, because otherwise two such transactions can deadlock.
func Once(ctx context.Context, tx pgx.Tx, s Subscriber, e Event, fn func(context.Context, Verdict) error) (Verdict, error) {
	if sabotage.On(sabotage.InboxOff) {
		return New, fn(ctx, New)
	}
	if err := check(s, e); err != nil {
		return "", err
	}
	db := dbgen.New(tx)
	verdict, seen, err := look(ctx, db, s.Name, e)
	if err != nil {
		return "", err
	}
	switch {
	case verdict == Duplicate:
		return Duplicate, nil
	case verdict != New && s.Policy == Reject:
		return verdict, &RejectedError{Event: e, Verdict: verdict, Seen: seen}
	}
	if err := fn(ctx, verdict); err != nil {
		return verdict, err
	}
	return verdict, record(ctx, db, s.Name, e)
}

// look locks the aggregate of the event until the transaction ends, and returns the verdict and the highest version processed.
func look(ctx context.Context, db *dbgen.Queries, subscriber string, e Event) (verdict Verdict, seen int64, err error) {
	// Looking for the id comes after the lock. Before it, two deliveries of one event at once would both find nothing.
	seen, err = db.InboxAggregateLock(ctx, dbgen.InboxAggregateLockParams{
		Subscriber: subscriber, AggregateType: e.AggregateType, AggregateID: e.AggregateID,
	})
	if err != nil {
		return "", 0, fmt.Errorf("locking the aggregate of event %s: %w", e.ID, err)
	}
	known, err := db.InboxKnown(ctx, dbgen.InboxKnownParams{Subscriber: subscriber, EventID: e.ID})
	if err != nil {
		return "", 0, fmt.Errorf("looking for event %s: %w", e.ID, err)
	}
	switch {
	case known:
		return Duplicate, seen, nil
	case e.Version <= seen:
		return Late, seen, nil
	case e.Version > seen+1:
		return Gap, seen, nil
	default:
		return New, seen, nil
	}
}

// record notes the event as processed, and moves its aggregate to its version.
func record(ctx context.Context, db *dbgen.Queries, subscriber string, e Event) error {
	err := db.InboxRecord(ctx, dbgen.InboxRecordParams{
		Subscriber: subscriber, EventID: e.ID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.Version,
	})
	if err != nil {
		return fmt.Errorf("noting event %s as processed: %w", e.ID, err)
	}
	return nil
}

func check(s Subscriber, e Event) error {
	switch {
	case s.Policy != Apply && s.Policy != Reject:
		return fmt.Errorf("inbox: Subscriber.Policy is %d: set it to Apply or Reject", s.Policy)
	default:
		return checkEvent(s.Name, e)
	}
}

func checkEvent(subscriber string, e Event) error {
	switch {
	case subscriber == "" || len(subscriber) > 100:
		return fmt.Errorf("inbox: Subscriber.Name is %q: set it to a name of 1 to 100 bytes", subscriber)
	case e.ID == uuid.Nil || e.AggregateType == "" || e.AggregateID == "" || e.Version < 1:
		return errors.New("inbox: the event has no ID, AggregateType, AggregateID or Version: take it from ParseEvent")
	}
	return nil
}

// forgetAtOnce is how many ids one statement of Forget deletes.
const forgetAtOnce = 1000

// Forget deletes the ids that the subscriber processed longer ago than age, and returns how many. Call it outside of a transaction (with a
// pool or a connection), so that it commits as it goes.
//
// An id must be kept for as long as its event can come again. The event can be replayed while its row is in outbox, and can then wait in a
// queue. If outbox is purged after 14 days and the queue keeps messages for 14, that is 28 days. If outbox is not purged, keep ids for good. A
// duplicate of a forgotten event is Late and never New, because versions are not forgotten.
func Forget(ctx context.Context, db dbgen.DBTX, subscriber string, age time.Duration) (int64, error) {
	if age <= 0 {
		return 0, fmt.Errorf("inbox: age is %s: set it to longer than an event can come again", age)
	}
	deleted := int64(0)
	for {
		n, err := dbgen.New(db).InboxForget(ctx, dbgen.InboxForgetParams{Subscriber: subscriber, Seconds: age.Seconds(), MaxRows: forgetAtOnce})
		deleted += n
		if err != nil {
			return deleted, fmt.Errorf("forgetting events of %s: %w", subscriber, err)
		}
		if n < forgetAtOnce {
			return deleted, nil
		}
	}
}
