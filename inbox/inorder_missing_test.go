package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/inbox"
)

// An event that passes a limit stays in its queue, and is held or applied when it comes again.
func TestHeldEventsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	refused := func(s inbox.Ordered, version, seen int64) {
		t.Helper()
		verdict, err := b.deliver(t.Context(), s, event("car", version))
		var refusal *inbox.RejectedError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, inbox.Gap, verdict)
		require.Equal(t, inbox.RejectedError{Event: event("car", version), Verdict: inbox.Gap, Seen: seen}, *refusal)
	}
	near := inbox.Ordered{Name: "tester", MaxAhead: 3}
	_, err := b.deliver(t.Context(), near, event("car", 3))
	require.NoError(t, err)
	refused(near, 4, 0)
	for _, version := range []int64{1, 4} {
		_, err := b.deliver(t.Context(), near, event("car", version))
		require.NoError(t, err)
	}
	refused(near, 5, 1)

	small := inbox.Ordered{Name: "tester", MaxBytes: 1700} // 300 bytes a row, and some for the data
	for version := int64(5); version < 9; version++ {
		_, err := b.deliver(t.Context(), small, event("car", version))
		require.NoError(t, err, "%d", version)
	}
	refused(small, 10, 1)
	_, err = b.deliver(t.Context(), small, event("car", 2))
	require.NoError(t, err, "the next one is never refused")
	_, err = b.deliver(t.Context(), small, event("car", 10))
	require.NoError(t, err, "files that are larger than the limit do not count, if their rows are gone")
	require.Equal(t, upTo(8), b.versions(t, "car"))
}

// A broken writer that uses a version twice is not taken for a duplicate.
func TestTwoEventsOfOneVersion(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	other := event("car", 2)
	other.ID = uuid.New()
	_, err := b.deliver(t.Context(), ordered, event("car", 2))
	require.NoError(t, err)
	_, err = b.deliver(t.Context(), ordered, other)
	require.ErrorContains(t, err, "which event "+event("car", 2).ID.String()+" has, too")
	_, err = b.deliver(t.Context(), ordered, event("car", 1))
	require.NoError(t, err)
	_, err = b.deliver(t.Context(), ordered, other)
	require.Equal(t, &inbox.RejectedError{Event: other, Verdict: inbox.Late, Seen: 2}, err)
}

func TestAsk(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	for _, e := range []inbox.Event{event("young", 2), event("car", 1), event("car", 3), event("car", 6), event("old", 9)} {
		_, err := b.deliver(t.Context(), ordered, e)
		require.NoError(t, err)
	}
	age := func(aggregate, interval string) {
		t.Helper()
		_, err := b.Exec(t.Context(), "UPDATE inbox_held SET held_at = now() - $2::interval, asked_at = asked_at - $2::interval WHERE aggregate_id = $1", aggregate, interval)
		require.NoError(t, err)
	}
	ask := func(result error) (asked []string, err error) {
		t.Helper()
		waiting, err := inbox.Ask(t.Context(), b, ordered, func(_ context.Context, m inbox.Missing) error {
			asked = append(asked, fmt.Sprintf("%s %s %d-%d %s %t", m.AggregateType, m.AggregateID, m.First, m.Last, m.Waited.Truncate(time.Minute), m.GivenUp))
			return result
		})
		asked = append(asked, fmt.Sprintf("%+v", waiting))
		return asked, err
	}
	age("car", "6 minutes")
	age("old", "61 minutes")
	want := []string{"Car old 1-8 1h1m0s true", "Car car 2-2 6m0s false", "{Held:4 GivenUp:1}"}
	asked, err := ask(errors.New("no"))
	require.ErrorContains(t, err, "asking for Car old: no")
	require.Equal(t, want, asked)
	asked, err = ask(nil)
	require.NoError(t, err)
	require.Equal(t, want, asked, "what could not be asked for is asked for again")
	asked, err = ask(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"{Held:4 GivenUp:1}"}, asked, "once in AskAfter")

	age("car", "7 minutes")
	asked, err = ask(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"Car car 2-2 7m0s false", "{Held:4 GivenUp:1}"}, asked)
	_, err = b.deliver(t.Context(), ordered, event("car", 2))
	require.NoError(t, err)
	asked, err = ask(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"Car car 4-5 7m0s false", "{Held:3 GivenUp:1}"}, asked, "the next gap does not wait anew")
}

// What was given up comes late. Everything else is applied, and in order.
func TestSkip(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	skip := func(version int64) {
		t.Helper()
		require.NoError(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
			return inbox.Skip(t.Context(), tx, ordered, "Car", "car", version, b.apply(tx))
		}))
	}
	for _, version := range []int64{1, 3, 4, 7, 9} {
		_, err := b.deliver(t.Context(), ordered, event("car", version))
		require.NoError(t, err)
	}
	skip(5)
	require.Equal(t, "1 3 4", b.versions(t, "car"))
	_, err := b.deliver(t.Context(), ordered, event("car", 6))
	require.NoError(t, err)
	require.Equal(t, "1 3 4 6 7", b.versions(t, "car"))
	skip(5)
	require.Equal(t, 1, b.held(t), "nothing is given up twice")
	verdict, err := b.deliver(t.Context(), ordered, event("car", 2))
	require.Equal(t, inbox.Late, verdict)
	require.ErrorAs(t, err, new(*inbox.RejectedError))
	skip(8)
	require.Equal(t, "1 3 4 6 7 9", b.versions(t, "car"))
	require.Zero(t, b.held(t))
	skip(41) // a subscriber that is younger than the aggregate
	verdict, err = b.deliver(t.Context(), ordered, event("car", 42))
	require.NoError(t, err)
	require.Equal(t, inbox.New, verdict)
}

func TestInOrderRefusesBadArguments(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	_, err := b.deliver(t.Context(), inbox.Ordered{}, event("car", 1))
	require.ErrorContains(t, err, "Subscriber.Name")
	_, err = b.deliver(t.Context(), ordered, inbox.Event{})
	require.ErrorContains(t, err, "take it from ParseEvent")
}
