package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/inbox"
)

var ordered = inbox.Ordered{Name: "tester"}

// deliver is what a subscriber in order does with one delivery. end runs in the transaction, after the event and those that it released.
func (b *bench) deliver(ctx context.Context, s inbox.Ordered, e inbox.Event, end ...func(pgx.Tx) error) (verdict inbox.Verdict, err error) {
	err = pgx.BeginFunc(ctx, b, func(tx pgx.Tx) error {
		verdict, err = inbox.InOrder(ctx, tx, s, e, b.apply(tx))
		for _, f := range end {
			err = errors.Join(err, f(tx))
		}
		return err
	})
	return verdict, err
}

func (b *bench) apply(tx pgx.Tx) func(context.Context, inbox.Event) error {
	return func(ctx context.Context, e inbox.Event) error {
		_, err := tx.Exec(ctx, "INSERT INTO result (aggregate, version, verdict) VALUES ($1, $2, $3)", e.AggregateID, e.Version, e.Type)
		return err
	}
}

// versions lists the versions of an aggregate in the order in which they were applied, such as "1 2 3".
func (b *bench) versions(t require.TestingT, aggregate string) (list string) {
	require.NoError(t, b.QueryRow(context.Background(), "SELECT coalesce(string_agg(version::text, ' ' ORDER BY place), '') FROM result WHERE aggregate = $1",
		aggregate).Scan(&list))
	return list
}

func (b *bench) held(t require.TestingT) (n int) {
	require.NoError(t, b.QueryRow(context.Background(), "SELECT count(*) FROM inbox_held").Scan(&n))
	return n
}

// upTo is "1 2 3" for 3.
func upTo(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i+1))
	}
	return strings.Join(all, " ")
}

func TestInOrder(t *testing.T) {
	t.Parallel()
	const n, d, h = inbox.New, inbox.Duplicate, inbox.Held
	for name, test := range map[string]struct {
		versions []int64
		verdicts []inbox.Verdict
		applied  string
		held     int
	}{
		"InOrder":           {[]int64{1, 2, 3}, []inbox.Verdict{n, n, n}, "1 2 3", 0},
		"TwiceIsOnce":       {[]int64{1, 1, 2, 1, 2}, []inbox.Verdict{n, d, n, d, d}, "1 2", 0},
		"EarlyWaits":        {[]int64{1, 3, 2, 4}, []inbox.Verdict{n, h, n, n}, "1 2 3 4", 0},
		"BeginsLater":       {[]int64{7, 8, 7}, []inbox.Verdict{h, h, h}, "", 2},
		"EarlyTwice":        {[]int64{2, 2, 1, 2}, []inbox.Verdict{h, h, n, d}, "1 2", 0},
		"AllOfItReverse":    {[]int64{4, 3, 2, 1}, []inbox.Verdict{h, h, h, n}, "1 2 3 4", 0},
		"SecondGapRemains":  {[]int64{2, 5, 1, 4, 3}, []inbox.Verdict{h, h, n, h, n}, "1 2 3 4 5", 0},
		"WaitsForTheSecond": {[]int64{2, 5, 1, 4}, []inbox.Verdict{h, h, n, h}, "1 2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, inbox.Apply)
			for i, version := range test.versions {
				verdict, err := b.deliver(t.Context(), ordered, event("car", version))
				require.NoError(t, err)
				require.Equal(t, test.verdicts[i], verdict, "delivery %d", i)
			}
			require.Equal(t, test.applied, b.versions(t, "car"))
			require.Equal(t, test.held, b.held(t))
		})
	}
}

// The function gets a held event as it was delivered.
func TestAHeldEventIsTheSame(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	early, err := inbox.ParseEvent([]byte(strings.Replace(envelope(t), `9007199254740993,`, `2,`, 1)))
	require.NoError(t, err)
	require.NotEmpty(t, early.Replay)
	require.NotEmpty(t, early.Traceparent)
	first := early
	first.ID, first.Version = uuid.New(), 1
	var got []inbox.Event
	for _, e := range []inbox.Event{early, first} {
		require.NoError(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
			_, err := inbox.InOrder(t.Context(), tx, ordered, e, func(_ context.Context, e inbox.Event) error {
				got = append(got, e)
				return nil
			})
			return err
		}))
	}
	require.Equal(t, []inbox.Event{first, early}, got)
}

// Whatever the order, however often a delivery is repeated or its transaction rolled back, each version is applied once, after the one
// before it. What was lost between is asked for, and comes again.
func TestAppliedInOrderWhateverComes(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	s := inbox.Ordered{Name: "tester", AskAfter: time.Nanosecond}
	crash := errors.New("crash")
	rapid.Check(t, func(t *rapid.T) {
		_, err := b.Exec(context.Background(), "TRUNCATE result, inbox, inbox_aggregate, inbox_held")
		require.NoError(t, err)
		lengths := rapid.SliceOfN(rapid.IntRange(1, 8), 1, 3).Draw(t, "lengths")
		var deliveries []inbox.Event
		lost := map[string]bool{}
		for i, length := range lengths {
			for version := range length {
				e := event(fmt.Sprint(i), int64(version+1))
				for range rapid.IntRange(0, 2).Draw(t, "times") {
					deliveries = append(deliveries, e)
				}
			}
		}
		for _, e := range rapid.Permutation(deliveries).Draw(t, "order") {
			if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
				_, err := b.deliver(context.Background(), s, e, func(pgx.Tx) error { return crash })
				require.ErrorIs(t, err, crash)
				if rapid.Bool().Draw(t, "lost") {
					lost[fmt.Sprint(e.AggregateID, e.Version)] = true
					continue
				}
			}
			_, err := b.deliver(context.Background(), s, e)
			require.NoError(t, err)
		}
		b.askUntilNothingIsMissing(t, s)
		for i, length := range lengths { // what was lost at the end is not missed by anybody
			_, err := b.deliver(context.Background(), s, event(fmt.Sprint(i), int64(length)))
			require.NoError(t, err)
		}
		b.askUntilNothingIsMissing(t, s)
		for i, length := range lengths {
			require.Equal(t, upTo(length), b.versions(t, fmt.Sprint(i)))
		}
	})
}

// askUntilNothingIsMissing delivers what Ask asks for, in reverse order.
func (b *bench) askUntilNothingIsMissing(t require.TestingT, s inbox.Ordered) {
	for b.held(t) > 0 {
		asked := false
		_, err := inbox.Ask(context.Background(), b, s, func(ctx context.Context, m inbox.Missing) error {
			for version := m.Last; version >= m.First; version-- {
				asked = true
				if _, err := b.deliver(ctx, s, event(m.AggregateID, version)); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
		require.True(t, asked, "events are held, and nothing is asked for")
	}
}

// Four workers at once get every event twice and in any order. One in a hundred is lost, and one in ten transactions is rolled back, after
// which the event comes again.
func TestAppliedInOrderByManyWorkers(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	s := inbox.Ordered{Name: "tester", AskAfter: time.Nanosecond}
	random := rand.New(rand.NewPCG(22, 3))
	const aggregates, length = 20, 25
	var all []inbox.Event
	lost := 0
	for i := range aggregates {
		for version := range length {
			if e := event(fmt.Sprint(i), int64(version+1)); version+1 < length && random.IntN(100) == 0 {
				lost++
			} else {
				all = append(all, e, e)
			}
		}
	}
	require.NotZero(t, lost)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	crash := errors.New("crash")
	var workers sync.WaitGroup
	for worker := range 4 {
		random := rand.New(rand.NewPCG(22, uint64(worker)))
		workers.Go(func() {
			for i := worker; i < len(all); i += 4 {
				if random.IntN(10) == 0 {
					if _, err := b.deliver(t.Context(), s, all[i], func(pgx.Tx) error { return crash }); !errors.Is(err, crash) {
						t.Errorf("a transaction that is rolled back: %v", err)
					}
				}
				if _, err := b.deliver(t.Context(), s, all[i]); err != nil {
					t.Errorf("delivery %d: %v", i, err)
				}
			}
		})
	}
	workers.Wait()
	require.NotZero(t, b.held(t), "what follows a lost event")
	b.askUntilNothingIsMissing(t, s)
	for i := range aggregates {
		require.Equal(t, upTo(length), b.versions(t, fmt.Sprint(i)))
	}
}

// The second delivery comes before the first has committed, and decides after it has. Neither leaves an event behind that nobody applies.
func TestTwoWorkersInOrder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ first, second int64 }{
		"Early": {2, 1}, "Next": {1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, inbox.Apply)
			inside, commit := make(chan struct{}), make(chan struct{})
			first, second := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := b.deliver(t.Context(), ordered, event("car", test.first), func(pgx.Tx) error { close(inside); <-commit; return nil })
				first <- err
			}()
			<-inside
			go func() {
				_, err := b.deliver(t.Context(), ordered, event("car", test.second))
				second <- err
			}()
			b.waitForLock(t)
			close(commit)
			require.NoError(t, <-first)
			require.NoError(t, <-second)
			require.Equal(t, "1 2", b.versions(t, "car"))
			require.Zero(t, b.held(t))
		})
	}
}

// A function that fails at a held event takes back the event that released it, too. The held one stays.
func TestAFailureAtAHeldEventAppliesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, inbox.Apply)
	_, err := b.deliver(t.Context(), ordered, event("car", 2))
	require.NoError(t, err)
	failure := errors.New("no")
	err = pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
		_, err := inbox.InOrder(t.Context(), tx, ordered, event("car", 1), func(ctx context.Context, e inbox.Event) error {
			if e.Version == 2 {
				return failure
			}
			return b.apply(tx)(ctx, e)
		})
		return err
	})
	require.ErrorIs(t, err, failure)
	require.Empty(t, b.versions(t, "car"))
	require.Equal(t, 1, b.held(t))
	_, err = b.deliver(t.Context(), ordered, event("car", 1))
	require.NoError(t, err)
	require.Equal(t, "1 2", b.versions(t, "car"))
}
