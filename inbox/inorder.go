package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/sabotage"
)

// Ordered is a subscriber that gets every version of an aggregate, in order. Only Name is required. All programs of one subscriber need
// the same values.
type Ordered struct {
	Name string // as of Subscriber
	// MaxAhead is how many versions an event may be ahead of the aggregate's next one and be held. It bounds the held events of an
	// aggregate, and with them the longest transaction, which applies them all. Default 1000.
	MaxAhead int64
	// MaxBytes bounds the table of held events, those of all subscribers together. Default 1 GiB.
	MaxBytes int64
	// AskAfter is how long an event is held before Ask asks for the versions before it, and how long Ask then waits before it asks again. It
	// should be longer than a message that failed takes to come again. Default 5 minutes.
	AskAfter time.Duration
	// GiveUpAfter is how long an event is held before Ask reports that it has given up. The event stays in the table, and is applied if the
	// missing versions come after all. Default an hour.
	GiveUpAfter time.Duration
}

func (s Ordered) withDefaults() Ordered {
	s.MaxAhead, s.MaxBytes = cmp.Or(s.MaxAhead, 1000), cmp.Or(s.MaxBytes, 1<<30)
	s.AskAfter, s.GiveUpAfter = cmp.Or(s.AskAfter, 5*time.Minute), cmp.Or(s.GiveUpAfter, time.Hour)
	return s
}

// InOrder calls fn for the event if it is the next one of its aggregate, and then for the held events that follow it without a gap, in the
// order of their versions. An event that comes before an earlier version is Held in table inbox_held until that version comes. A Duplicate
// changes nothing. All of this is in tx, which the caller commits. Roll back after any error, including fn's own. The event and the events
// that it released then count as not processed, and those that were held still are.
//
// The first version of an aggregate is 1. A subscriber that is younger than its aggregates needs their older events first (outboxctl
// replay), or gives them up (Skip). Its rule must not filter on detail-type, because an event that never comes holds all that follow.
//
// InOrder returns a *RejectedError for an event that it cannot hold, because it is further ahead than MaxAhead or the table is full, and for
// a Late one. The message stays in the queue then, which delivers it again or parks it. A late event is one that the subscriber passed over,
// by Skip or by policy Apply before. Nothing of it was processed.
//
// Locks are those of Once.
func InOrder(ctx context.Context, tx pgx.Tx, s Ordered, e Event, fn func(context.Context, Event) error) (Verdict, error) {
	if err := checkEvent(s.Name, e); err != nil {
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
	case verdict != New && sabotage.On(sabotage.ApplyEarly):
	case verdict == Gap:
		return hold(ctx, db, s.withDefaults(), e, seen)
	case verdict == Late:
		return Late, &RejectedError{Event: e, Verdict: Late, Seen: seen}
	}
	if err := fn(ctx, e); err != nil {
		return New, err
	}
	if err := record(ctx, db, s.Name, e); err != nil {
		return New, err
	}
	return New, release(ctx, db, s.Name, e, 0, fn)
}

// Skip gives up the versions of an aggregate up to a version that are neither processed nor held, so that the later ones can go on. It calls
// fn for held events as InOrder does. A version that was given up is Late when it comes. Nothing but Skip ever passes over a version.
func Skip(ctx context.Context, tx pgx.Tx, s Ordered, aggregateType, aggregateID string, version int64, fn func(context.Context, Event) error) error {
	db := dbgen.New(tx)
	seen, err := db.InboxAggregateLock(ctx, dbgen.InboxAggregateLockParams{Subscriber: s.Name, AggregateType: aggregateType, AggregateID: aggregateID})
	if err != nil {
		return fmt.Errorf("locking %s %s: %w", aggregateType, aggregateID, err)
	}
	return release(ctx, db, s.Name, Event{AggregateType: aggregateType, AggregateID: aggregateID, Version: seen}, version, fn)
}

// hold puts the event into the table, or returns a *RejectedError when that would pass a limit.
func hold(ctx context.Context, db *dbgen.Queries, s Ordered, e Event, seen int64) (Verdict, error) {
	full := e.Version-seen > s.MaxAhead
	if !full {
		var err error
		if full, err = db.InboxHeldFull(ctx, s.MaxBytes); err != nil {
			return "", fmt.Errorf("measuring the held events: %w", err)
		}
	}
	if full {
		return Gap, &RejectedError{Event: e, Verdict: Gap, Seen: seen}
	}
	there, err := db.InboxHold(ctx, dbgen.InboxHoldParams{
		Subscriber: s.Name, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.Version, EventID: e.ID,
		EventType: e.Type, EventData: e.Data, Traceparent: e.Traceparent, Replay: e.Replay, CreatedAt: e.Timestamp,
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("holding event %s: %w", e.ID, err)
	case there != e.ID:
		// One of the two is the next version, and nobody can say which.
		return "", fmt.Errorf("event %s has version %d of %s %s, which event %s has, too", e.ID, e.Version, e.AggregateType, e.AggregateID, there)
	}
	return Held, nil
}

// releasePage is how many held events are in memory at once. Of the largest that the outbox takes it is 3 MB.
const releasePage = 50

// release processes the held events after the given one, up to the first gap after version skipped. It removes them when all are processed,
// because an update of the aggregate's row for each of them takes time that grows with the square of their number.
func release(ctx context.Context, db *dbgen.Queries, subscriber string, e Event, skipped int64, fn func(context.Context, Event) error) error {
	at := e.Version
	for more := true; more; {
		page, err := db.InboxHeldPage(ctx, dbgen.InboxHeldPageParams{
			Subscriber: subscriber, AggregateType: e.AggregateType, AggregateID: e.AggregateID, FromVersion: at + 1, MaxRows: releasePage,
		})
		if err != nil {
			return fmt.Errorf("reading the held events of %s %s: %w", e.AggregateType, e.AggregateID, err)
		}
		more = len(page) == releasePage
		for _, held := range page {
			if held.AggregateVersion > max(at, skipped)+1 {
				more = false
				break
			}
			if err := fn(ctx, eventOf(held)); err != nil {
				return err
			}
			if err := db.InboxNote(ctx, dbgen.InboxNoteParams{
				Subscriber: subscriber, EventID: held.EventID, AggregateType: held.AggregateType, AggregateID: held.AggregateID, AggregateVersion: held.AggregateVersion,
			}); err != nil {
				return fmt.Errorf("noting event %s as processed: %w", held.EventID, err)
			}
			at = held.AggregateVersion
		}
	}
	if at = max(at, skipped); at == e.Version {
		return nil
	}
	err := db.InboxAdvance(ctx, dbgen.InboxAdvanceParams{
		Subscriber: subscriber, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: at,
	})
	if err != nil {
		return fmt.Errorf("removing the held events of %s %s: %w", e.AggregateType, e.AggregateID, err)
	}
	return nil
}

func eventOf(held dbgen.InboxHeld) Event {
	return Event{
		ID: held.EventID, AggregateType: held.AggregateType, AggregateID: held.AggregateID, Version: held.AggregateVersion, Type: held.EventType,
		Data: held.EventData, Timestamp: held.CreatedAt.UTC(), Traceparent: held.Traceparent, Replay: held.Replay,
	}
}

// Missing are versions of one aggregate that have not come, while a later one is held.
type Missing struct {
	AggregateType, AggregateID string
	First, Last                int64         // versions
	Waited                     time.Duration // since the event after them was held
	// GivenUp reports whether that is longer than GiveUpAfter. A person has to look then, because asking has not helped.
	GivenUp bool
}

// Waiting is what a subscriber waits with.
type Waiting struct {
	Held    int64 // events
	GivenUp int64 // aggregates whose next held event has waited for longer than GiveUpAfter. Give it an alarm
}

// askAtOnce is how many aggregates one call of Ask asks for, so that its time and memory are bounded.
const askAtOnce = 100

// Ask calls ask for the aggregates that have waited for longest, each at most once in AskAfter. ask makes the missing versions come again,
// for example by a replay. Call Ask about once a minute, with a pool or a connection, so that what was asked for is noted at once. After
// an error of ask nothing is noted, and the next call asks again.
func Ask(ctx context.Context, db dbgen.DBTX, s Ordered, ask func(context.Context, Missing) error) (Waiting, error) {
	s = s.withDefaults()
	queries := dbgen.New(db)
	all, err := queries.InboxMissing(ctx, dbgen.InboxMissingParams{Subscriber: s.Name, Seconds: s.AskAfter.Seconds(), MaxRows: askAtOnce})
	if err != nil {
		return Waiting{}, fmt.Errorf("looking for missing versions: %w", err)
	}
	var failed error
	for _, row := range all {
		waited := time.Duration(row.Waited * float64(time.Second))
		err := ask(ctx, Missing{
			AggregateType: row.AggregateType, AggregateID: row.AggregateID, First: row.FirstMissing, Last: row.HeldVersion - 1,
			Waited: waited, GivenUp: waited > s.GiveUpAfter,
		})
		if err == nil {
			err = queries.InboxAsked(ctx, dbgen.InboxAskedParams{
				Subscriber: s.Name, AggregateType: row.AggregateType, AggregateID: row.AggregateID, AggregateVersion: row.HeldVersion,
			})
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("asking for %s %s: %w", row.AggregateType, row.AggregateID, err))
		}
	}
	waiting, err := CountHeld(ctx, db, s)
	return waiting, errors.Join(failed, err)
}

// CountHeld returns what the subscriber waits with. Before a subscriber goes from InOrder to Once it has to be nothing, because Once does
// not see held events, and their messages are deleted.
func CountHeld(ctx context.Context, db dbgen.DBTX, s Ordered) (Waiting, error) {
	totals, err := dbgen.New(db).InboxHeldTotals(ctx, dbgen.InboxHeldTotalsParams{Subscriber: s.Name, Seconds: s.withDefaults().GiveUpAfter.Seconds()})
	if err != nil {
		return Waiting{}, fmt.Errorf("counting the held events: %w", err)
	}
	return Waiting{Held: totals.Events, GivenUp: totals.GivenUp}, nil
}
