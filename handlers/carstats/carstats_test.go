package carstats_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/internal/pgtest"
)

// ctx for what rapid calls.
var ctx = context.Background()

// history is the life of one car, with what it is at each version. The last version deletes it.
func history(deleted bool, kinds ...kind) (all []fact) {
	car := uuid.New()
	for i, k := range kinds {
		all = append(all, fact{event: uuid.New(), car: car, version: int64(i + 1), kind: k, deleted: deleted && i == len(kinds)-1})
	}
	return all
}

// expected counts what happened, each event once and each car as it ended.
func expected(histories [][]fact) []total {
	sums := map[kind]total{}
	for _, h := range histories {
		for i, f := range h {
			n := sums[f.kind]
			n.Changes++
			if i == len(h)-1 && !f.deleted {
				n.Cars++
			}
			n.kind = f.kind
			sums[f.kind] = n
		}
	}
	var all []total
	for _, n := range sums {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b total) int { return cmp.Or(cmp.Compare(a.Make, b.Make), cmp.Compare(a.Year, b.Year)) })
	return all
}

var kinds = []kind{{"Audi", 2020}, {"Audi", 2021}, {"BMW", 2020}}

func histories(t *rapid.T) [][]fact {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []fact {
		deleted := rapid.Bool().Draw(t, "deleted")
		return history(deleted, rapid.SliceOfN(rapid.SampledFrom(kinds), 1, 5).Draw(t, "kinds")...)
	}), 1, 4).Draw(t, "histories")
}

// deliveries is every event at least once, some twice or three times, in any order.
func deliveries(t *rapid.T, histories [][]fact) []string {
	var all []string
	for _, f := range slices.Concat(histories...) {
		for range rapid.IntRange(1, 3).Draw(t, "times") {
			all = append(all, f.body())
		}
	}
	return rapid.Permutation(all).Draw(t, "order")
}

// Whatever comes twice, late or out of order, in the end the totals are those of the cars.
func TestTotalsAreRightWhateverTheOrder(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, r *rig) {
		rapid.Check(t, func(t *rapid.T) {
			_, err := r.pool.Exec(ctx, "TRUNCATE car_stats, car_stats_car, inbox, inbox_aggregate, inbox_held")
			require.NoError(t, err)
			cars := histories(t)
			for bodies := range slices.Chunk(deliveries(t, cars), 10) {
				response, err := r.Handle(ctx, batch(bodies...))
				require.NoError(t, err)
				require.Empty(t, response.BatchItemFailures)
			}
			require.Equal(t, expected(cars), r.totals(t))
		})
	})
}

// Four environments at once move cars between the same few totals, and none deadlocks another.
func TestTotalsAreRightWithManyWorkers(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, r *rig) {
		r.trigger(t, "UPDATE", "PERFORM pg_sleep(0.005)", "true") // between the two rows that a move changes
		var cars [][]fact
		for i := range 40 {
			cars = append(cars, history(i%5 == 0, kinds[i%3], kinds[(i+1)%3], kinds[(i+2)%3], kinds[i%3]))
		}
		var bodies []string
		for _, f := range slices.Concat(cars...) {
			bodies = append(bodies, f.body(), f.body())
		}
		batches := slices.Collect(slices.Chunk(rapid.Permutation(bodies).Example(), 10))
		var workers sync.WaitGroup
		for worker := range 4 {
			workers.Go(func() {
				for i := worker; i < len(batches); i += 4 {
					response, err := r.Handle(ctx, batch(batches[i]...))
					if err != nil || len(response.BatchItemFailures) > 0 {
						t.Errorf("batch %d: %v %v", i, failed(response), err)
					}
				}
			})
		}
		workers.Wait()
		require.Equal(t, expected(cars), r.totals(t))
	})
}

func TestALateEventDoesNotBringADeletedCarBack(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, r *rig) {
		car := history(true, kinds[0], kinds[1], kinds[1])
		response, err := r.Handle(ctx, batch(car[2].body(), car[1].body(), car[0].body()))
		require.NoError(t, err)
		require.Empty(t, response.BatchItemFailures)
		require.Equal(t, []total{{kinds[0], 0, 1}, {kinds[1], 0, 2}}, r.totals(t))
	})
}

// A message that cannot be counted fails by itself. The others of its batch are counted, and only it comes again.
func TestOnlyTheMessageThatFailedIsNamed(t *testing.T) {
	t.Parallel()
	car := history(false, kinds[0])[0]
	for name, poison := range map[string]string{
		"NotJSON":        "hello",
		"AnotherEvent":   `{"version":"0","detail-type":"EC2 Instance State-change Notification","source":"aws.ec2","detail":{"state":"running"}}`,
		"UnknownType":    strings.Replace(car.body(), "CarCreated", "CarRepainted", 1),
		"NoCar":          strings.Replace(car.body(), car.car.String(), "A-1", 1),
		"NoMake":         strings.Replace(car.body(), `"make"`, `"maker"`, 1),
		"NoYear":         strings.Replace(car.body(), `"year"`, `"years"`, 1),
		"YearIsText":     strings.Replace(car.body(), `"year":2020`, `"year":"2020"`, 1),
		"MakeTooLong":    strings.Replace(car.body(), `"Audi"`, `"`+strings.Repeat("x", 101)+`"`, 1),
		"MakeHasZero":    strings.Replace(car.body(), `"Audi"`, `"\u0000"`, 1),
		"AggregateOdd":   strings.Replace(car.body(), `"aggregateId":"`, `"aggregateId":"\u0000`, 1),
		"OfALargeNumber": strings.Replace(car.body(), `"year":2020`, `"year":2147483648`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			first, second := history(false, kinds[1])[0], history(false, kinds[1])[0]
			for range 2 {
				response, err := r.Handle(ctx, batch(first.body(), poison, second.body()))
				require.NoError(t, err)
				require.Equal(t, []string{"m1"}, failed(response))
			}
			require.Equal(t, []total{{kinds[1], 2, 2}}, r.totals(t))
			var known int
			require.NoError(t, r.pool.QueryRow(ctx, "SELECT count(*) FROM inbox").Scan(&known))
			require.Equal(t, 2, known)
		})
	}
}

// over is a context whose time is nearly over, and never ends.
type over struct{ context.Context }

func (over) Deadline() (time.Time, bool) { return time.Now().Add(500 * time.Millisecond), true }

// A function that runs into its timeout answers nothing, and what it has counted comes again. So it names what it has no time for. It
// always counts one message, or a function with little time would count none, ever.
func TestMessagesWithoutTimeComeAgain(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, r *rig) {
		cars := [][]fact{history(false, kinds[0]), history(false, kinds[0]), history(false, kinds[1])}
		bodies := []string{cars[0][0].body(), cars[1][0].body(), cars[2][0].body()}
		response, err := r.Handle(over{ctx}, batch(bodies...))
		require.NoError(t, err)
		require.Equal(t, []string{"m1", "m2"}, failed(response))
		require.Equal(t, expected(cars[:1]), r.totals(t))
		response, err = r.Handle(ctx, batch(bodies...))
		require.NoError(t, err)
		require.Empty(t, failed(response))
		require.Equal(t, expected(cars), r.totals(t))
	})
}

// The database goes away in the middle of a batch. Committed messages stay, the rest comes again, and nothing counts twice.
func TestTheSessionIsKilledInABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.trigger(t, "INSERT", "PERFORM pg_terminate_backend(pg_backend_pid())", "NEW.make = 'BMW'")
	bodies := []string{history(false, kinds[0])[0].body(), history(false, kinds[2])[0].body(), history(false, kinds[1])[0].body()}
	var log bytes.Buffer
	s, err := carstats.New(carstats.Config{Pool: r.pool, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	response, err := s.Handle(ctx, batch(bodies...))
	require.ErrorContains(t, err, "the database ended the connection", "an answer that names two messages would be a success to Lambda")
	require.Empty(t, response)
	require.Contains(t, log.String(), "messages=3 new=1 duplicates=0 gaps=0 late=0 failed=1", "what was committed is counted")
	require.Equal(t, []total{{kinds[0], 1, 1}}, r.totals(t))
	_, err = r.pool.Exec(ctx, "DROP TRIGGER at ON car_stats")
	require.NoError(t, err)
	response, err = r.Handle(ctx, batch(bodies...)) // Lambda brings all of them again
	require.NoError(t, err)
	require.Empty(t, response.BatchItemFailures)
	require.Equal(t, []total{{kinds[0], 1, 1}, {kinds[1], 1, 1}, {kinds[2], 1, 1}}, r.totals(t))
}

// trigger does something before rows of car_stats are written.
func (r *rig) trigger(t *testing.T, event, statement, when string) {
	t.Helper()
	_, err := r.pool.Exec(ctx, "CREATE FUNCTION at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+statement+"; RETURN NEW; END $$")
	require.NoError(t, err)
	_, err = r.pool.Exec(ctx, "CREATE TRIGGER at BEFORE "+event+" ON car_stats FOR EACH ROW WHEN ("+when+") EXECUTE FUNCTION at()")
	require.NoError(t, err)
}

// panicOnce panics at the first statement that has the text.
type panicOnce struct {
	text string
	done bool
}

func (p *panicOnce) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !p.done && strings.Contains(data.SQL, p.text) {
		p.done = true
		panic("broken")
	}
	return ctx
}

func (p *panicOnce) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestAPanicIsAFailureOfItsMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	config := r.pool.Config()
	config.ConnConfig.Tracer = &panicOnce{text: "CarStatsAdd"}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	response, err := newSubscriber(t, pool, false).Handle(ctx, batch(history(false, kinds[0])[0].body(), history(false, kinds[1])[0].body()))
	require.NoError(t, err)
	require.Equal(t, []string{"m0"}, failed(response))
	require.Equal(t, []total{{kinds[1], 1, 1}}, r.totals(t))
}

func TestNoDatabaseIsAnErrorOfTheBatch(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(ctx, "postgres://nobody@127.0.0.1:1/none")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	response, err := newSubscriber(t, pool, false).Handle(ctx, batch("x"))
	require.ErrorContains(t, err, "connecting to the database")
	require.Empty(t, response.BatchItemFailures)
}

// The function's own user may do what it needs, and see nothing of the service.
func TestItsRoleIsEnough(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	config, err := pgxpool.ParseConfig(r.pool.Config().ConnString())
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["role"] = "outbox_carstats"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, inOrder := range []bool{false, true} {
		car := history(true, kinds[0], kinds[1], kinds[1])
		subscriber := newSubscriber(t, pool, inOrder)
		for _, messages := range []events.SQSEvent{batch(car[0].body(), car[2].body(), car[1].body(), car[1].body()), batch()} {
			response, err := subscriber.Handle(ctx, messages)
			require.NoError(t, err)
			require.Empty(t, response.BatchItemFailures)
		}
	}
	require.Equal(t, []total{{kinds[0], 0, 2}, {kinds[1], 0, 4}}, r.totals(t))
	for _, table := range []string{"cars", "outbox"} {
		_, err := pool.Exec(ctx, "SELECT FROM "+table)
		require.ErrorContains(t, err, "permission denied")
	}
}

func TestOneLineABatchWithoutPayloads(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	db := pgtest.New(t)
	s, err := carstats.New(carstats.Config{Pool: db.Pool, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	car := history(false, kinds[0], kinds[0], kinds[0])
	_, err = s.Handle(ctx, batch(car[0].body(), car[2].body(), car[1].body(), car[1].body()))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "messages=4 new=1 duplicates=1 gaps=1 late=1 failed=0")
	log.Reset()
	_, err = s.Handle(ctx, batch(strings.Replace(car[0].body(), "CarCreated", "Secret", 1)))
	require.NoError(t, err)
	require.Contains(t, log.String(), "message_id=m0 receive_count=1 error=\"event "+car[0].event.String())
	require.NotContains(t, log.String(), "Audi")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, config := range map[string]carstats.Config{
		"Pool": {Logger: slog.Default()}, "Logger": {Pool: &pgxpool.Pool{}},
	} {
		_, err := carstats.New(config)
		require.ErrorContains(t, err, fmt.Sprintf("carstats: Config.%s is nil", field))
	}
}
