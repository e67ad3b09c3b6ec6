package inbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
)

// bench is a subscriber's database. Its result is the list of versions in the order of processing.
type bench struct {
	*pgxpool.Pool
	subscriber inbox.Subscriber
}

func newBench(t *testing.T, policy inbox.Policy) *bench {
	t.Helper()
	b := &bench{pgtest.New(t).Pool, inbox.Subscriber{Name: "tester", Policy: policy}}
	_, err := b.Exec(t.Context(), "CREATE TABLE result (place serial, aggregate text, version bigint, verdict text)")
	require.NoError(t, err)
	return b
}

// event is always the same for the same aggregate and version.
func event(aggregate string, version int64) inbox.Event {
	return inbox.Event{
		ID:            uuid.NewSHA1(uuid.NameSpaceOID, append([]byte(aggregate), byte(version))),
		AggregateType: "Car", AggregateID: aggregate, Version: version, Type: "CarUpdated", Data: []byte(`{}`),
	}
}

// process is what a subscriber does with one delivery. before runs in the transaction, behind the result.
func (b *bench) process(ctx context.Context, e inbox.Event, before ...func(pgx.Tx) error) (verdict inbox.Verdict, err error) {
	err = pgx.BeginFunc(ctx, b, func(tx pgx.Tx) error {
		verdict, err = inbox.Once(ctx, tx, b.subscriber, e, func(ctx context.Context, v inbox.Verdict) error {
			_, err := tx.Exec(ctx, "INSERT INTO result (aggregate, version, verdict) VALUES ($1, $2, $3)", e.AggregateID, e.Version, string(v))
			for _, f := range before {
				err = errors.Join(err, f(tx))
			}
			return err
		})
		return err
	})
	return verdict, err
}

// result lists what was processed of an aggregate, such as "1 new, 3 gap".
func (b *bench) result(t *testing.T, aggregate string) (list string) {
	t.Helper()
	require.NoError(t, b.QueryRow(t.Context(), "SELECT coalesce(string_agg(version || ' ' || verdict, ', ' ORDER BY place), '') FROM result WHERE aggregate = $1",
		aggregate).Scan(&list))
	return list
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		versions []int64
		verdicts []inbox.Verdict
		result   string
	}{
		"InOrder":        {[]int64{1, 2, 3}, []inbox.Verdict{inbox.New, inbox.New, inbox.New}, "1 new, 2 new, 3 new"},
		"TwiceIsOnce":    {[]int64{1, 1, 2, 1, 2}, []inbox.Verdict{inbox.New, inbox.Duplicate, inbox.New, inbox.Duplicate, inbox.Duplicate}, "1 new, 2 new"},
		"GapThenLate":    {[]int64{1, 3, 2, 4}, []inbox.Verdict{inbox.New, inbox.Gap, inbox.Late, inbox.New}, "1 new, 3 gap, 2 late, 4 new"},
		"BeginsLater":    {[]int64{7, 8, 7}, []inbox.Verdict{inbox.Gap, inbox.New, inbox.Duplicate}, "7 gap, 8 new"},
		"LateTwice":      {[]int64{2, 1, 1}, []inbox.Verdict{inbox.Gap, inbox.Late, inbox.Duplicate}, "2 gap, 1 late"},
		"AllOfItReverse": {[]int64{3, 2, 1, 4}, []inbox.Verdict{inbox.Gap, inbox.Late, inbox.Late, inbox.New}, "3 gap, 2 late, 1 late, 4 new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, inbox.Apply)
			for i, version := range test.versions {
				verdict, err := b.process(t.Context(), event("car", version))
				require.NoError(t, err)
				require.Equal(t, test.verdicts[i], verdict, "delivery %d", i)
			}
			require.Equal(t, test.result, b.result(t, "car"))
		})
	}
}

func TestRejectKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Reject)
	rejected := func(version, seen int64, verdict inbox.Verdict) {
		t.Helper()
		_, err := b.process(t.Context(), event("car", version))
		var refusal *inbox.RejectedError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, inbox.RejectedError{Event: event("car", version), Verdict: verdict, Seen: seen}, *refusal)
	}
	processed := func(version int64) {
		t.Helper()
		verdict, err := b.process(t.Context(), event("car", version))
		require.NoError(t, err)
		require.Equal(t, inbox.New, verdict)
	}
	rejected(2, 0, inbox.Gap)
	processed(1)
	rejected(3, 1, inbox.Gap)
	processed(2)
	processed(3) // delivered again, in its turn
	verdict, err := b.process(t.Context(), event("car", 2))
	require.NoError(t, err)
	require.Equal(t, inbox.Duplicate, verdict, "no refusal: its message has done its work")
	_, err = b.Exec(t.Context(), "DELETE FROM inbox WHERE aggregate_version = 2")
	require.NoError(t, err)
	rejected(2, 3, inbox.Late)
	require.Equal(t, "1 new, 2 new, 3 new", b.result(t, "car"))
}

// A caller that commits in spite of the error must not have the event noted as processed.
func TestRejectedIsNotNotedEvenIfCommitted(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Reject)
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = inbox.Once(t.Context(), tx, b.subscriber, event("car", 2), func(context.Context, inbox.Verdict) error { return nil })
	require.ErrorAs(t, err, new(*inbox.RejectedError))
	require.NoError(t, tx.Commit(t.Context()))
	for _, version := range []int64{1, 2} {
		verdict, err := b.process(t.Context(), event("car", version))
		require.NoError(t, err)
		require.Equal(t, inbox.New, verdict)
	}
}

func TestSubscribersAndAggregatesAreApart(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	truck := event("car", 1)
	truck.ID, truck.AggregateType = uuid.New(), "Truck"
	for _, e := range []inbox.Event{event("car", 1), event("other", 1), truck} {
		verdict, err := b.process(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, inbox.New, verdict)
	}
	b.subscriber.Name = "another"
	verdict, err := b.process(t.Context(), event("car", 1))
	require.NoError(t, err)
	require.Equal(t, inbox.New, verdict)
}

// waitForLock waits until a session of this database waits for a lock.
func (b *bench) waitForLock(t *testing.T) {
	t.Helper()
	labtest.Eventually(t, "a worker that waits for the lock", func() bool {
		var waits bool
		err := b.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')").Scan(&waits)
		return err == nil && waits
	})
}

// The second worker comes before the first has committed, and decides after it has.
func TestTwoWorkersAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy  inbox.Policy
		before  []int64 // processed already, so that the aggregate's row is there
		first   int64
		second  int64
		verdict inbox.Verdict
		result  string
	}{
		"SameFirstEvent":        {inbox.Apply, nil, 1, 1, inbox.Duplicate, "1 new"},
		"SameLaterEvent":        {inbox.Apply, []int64{1}, 2, 2, inbox.Duplicate, "1 new, 2 new"},
		"NextOfTheSame":         {inbox.Apply, []int64{1}, 2, 3, inbox.New, "1 new, 2 new, 3 new"},
		"NextUnderReject":       {inbox.Reject, nil, 1, 2, inbox.New, "1 new, 2 new"},
		"OvertakenIsLate":       {inbox.Apply, nil, 2, 1, inbox.Late, "2 gap, 1 late"},
		"OvertakenOfALongerOne": {inbox.Apply, []int64{1}, 4, 2, inbox.Late, "1 new, 4 gap, 2 late"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, test.policy)
			for _, version := range test.before {
				_, err := b.process(t.Context(), event("car", version))
				require.NoError(t, err)
			}
			inside, commit := make(chan struct{}), make(chan struct{})
			first := make(chan error, 1)
			go func() {
				_, err := b.process(t.Context(), event("car", test.first), func(pgx.Tx) error { close(inside); <-commit; return nil })
				first <- err
			}()
			<-inside
			second := make(chan error, 1)
			var verdict inbox.Verdict
			go func() {
				var err error
				verdict, err = b.process(t.Context(), event("car", test.second))
				second <- err
			}()
			b.waitForLock(t)
			_, err := b.process(t.Context(), event("other", 1))
			require.NoError(t, err, "another aggregate does not wait")
			close(commit)
			require.NoError(t, <-first)
			require.NoError(t, <-second)
			require.Equal(t, test.verdict, verdict)
			require.Equal(t, test.result, b.result(t, "car"))
		})
	}
}

// Whatever ends the transaction before its commit, the next delivery processes the event, and once.
func TestCrashBeforeTheCommit(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(tx pgx.Tx) error{
		"SessionKilled": func(tx pgx.Tx) error {
			_, _ = tx.Exec(context.Background(), "SELECT pg_terminate_backend(pg_backend_pid())")
			return nil
		},
		"FunctionFails": func(pgx.Tx) error { return errors.New("no") },
		"FunctionPanics": func(tx pgx.Tx) error {
			panic("no")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, inbox.Apply)
			func() {
				defer func() { _ = recover() }()
				_, err := b.process(t.Context(), event("car", 1), crash)
				require.Error(t, err)
			}()
			require.Empty(t, b.result(t, "car"))
			verdict, err := b.process(t.Context(), event("car", 1))
			require.NoError(t, err)
			require.Equal(t, inbox.New, verdict)
			require.Equal(t, "1 new", b.result(t, "car"))
		})
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	for version := range int64(3) {
		_, err := b.process(t.Context(), event("car", version+1))
		require.NoError(t, err)
	}
	newest := event("forgotten whole", 1)
	_, err := b.process(t.Context(), newest)
	require.NoError(t, err)
	_, err = b.Exec(t.Context(), "UPDATE inbox SET processed_at = now() - interval '10 days' WHERE aggregate_version < 3")
	require.NoError(t, err)
	_, err = b.Exec(t.Context(), `INSERT INTO inbox (subscriber, event_id, aggregate_type, aggregate_id, aggregate_version, processed_at)
		SELECT s, gen_random_uuid(), 'Car', 'old', n, now() - interval '11 days' FROM generate_series(1, 2500) AS n, (VALUES ('tester'), ('another')) AS v (s)`)
	require.NoError(t, err)

	n, err := inbox.Forget(t.Context(), b, "tester", 11*24*time.Hour-time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 2500, n, "more than one statement deletes")
	n, err = inbox.Forget(t.Context(), b, "tester", 9*24*time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	verdict, err := b.process(t.Context(), newest)
	require.NoError(t, err)
	require.Equal(t, inbox.Late, verdict, "the newest version of its aggregate is never new again, either")
	var others int
	require.NoError(t, b.QueryRow(t.Context(), "SELECT count(*) FROM inbox WHERE subscriber = 'another'").Scan(&others))
	require.Equal(t, 2500, others)

	for version, want := range map[int64]inbox.Verdict{1: inbox.Late, 3: inbox.Duplicate} {
		verdict, err := b.process(t.Context(), event("car", version))
		require.NoError(t, err)
		require.Equal(t, want, verdict, "version %d: forgotten, never new", version)
	}
	_, err = inbox.Forget(t.Context(), b, "tester", 0)
	require.ErrorContains(t, err, "age is 0s")
}

func TestBadArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	_, err := b.process(t.Context(), inbox.Event{})
	require.ErrorContains(t, err, "take it from ParseEvent")
	b.subscriber.Policy = 2
	_, err = b.process(t.Context(), event("car", 1))
	require.ErrorContains(t, err, "Subscriber.Policy is 2")
	b.subscriber = inbox.Subscriber{Name: strings.Repeat("x", 101)}
	_, err = b.process(t.Context(), event("car", 1))
	require.ErrorContains(t, err, "Subscriber.Name")
	b.subscriber.Name = strings.Repeat("x", 100)
	_, err = b.process(t.Context(), event("car", 1))
	require.NoError(t, err)
	b.subscriber = inbox.Subscriber{}
	_, err = b.process(t.Context(), event("car", 1))
	require.ErrorContains(t, err, "Subscriber.Name")
}
