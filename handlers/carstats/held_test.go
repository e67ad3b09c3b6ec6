package carstats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
)

// A load of the whole table that keeps no order, as the one of DMS, and beside it the changes: in order every event is counted in its turn,
// and nothing is held at the end.
func TestAShuffledLoadIsCountedInOrder(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool
	r := &rig{newSubscriber(t, pool, true), pool}
	r.noteTheOrder(t)
	var cars [][]fact
	var load, changes []string
	for i := range 60 {
		cars = append(cars, history(i%5 == 0, kinds[i%3], kinds[(i+1)%3], kinds[(i+2)%3], kinds[i%3]))
		for _, f := range cars[i][:3] {
			load = append(load, f.body())
		}
		changes = append(changes, cars[i][3].body())
	}
	load = rapid.Permutation(load).Example(22)
	deliveries := slices.Concat(load[:len(load)/2], changes, load[len(load)/2:])
	for bodies := range slices.Chunk(deliveries, 10) {
		response, err := r.Handle(ctx, batch(bodies...))
		require.NoError(t, err)
		require.Empty(t, response.BatchItemFailures)
	}
	require.Equal(t, expected(cars), r.totals(t))
	require.Equal(t, order{events: 240}, r.order(t))
}

// order is what became of the events.
type order struct {
	events    int // counted
	misplaced int // counted in another place than their version says, or twice
	held      int
}

// noteTheOrder notes from now on in which order events are counted.
func (r *rig) noteTheOrder(t *testing.T) {
	t.Helper()
	_, err := r.pool.Exec(ctx, `CREATE TABLE counted (place serial, car uuid, version bigint);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO counted (car, version) VALUES (NEW.aggregate_id::uuid, NEW.aggregate_version); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION note()`)
	require.NoError(t, err)
}

func (r *rig) order(t *testing.T) (o order) {
	t.Helper()
	require.NoError(t, r.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE version <> turn), (SELECT count(*) FROM inbox_held)
		FROM (SELECT version, row_number() OVER (PARTITION BY car ORDER BY place) AS turn FROM counted) AS t`).Scan(&o.events, &o.misplaced, &o.held))
	return o
}

// What is missing is logged and asked for, at last as given up, and counted when it comes after all.
func TestMissingVersionsAreAskedFor(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool
	var log bytes.Buffer
	var asked []inbox.Missing
	var failure error
	s, err := carstats.New(carstats.Config{
		Pool: pool, Logger: slog.New(slog.NewTextHandler(&log, nil)), InOrder: true,
		Ordered: inbox.Ordered{AskAfter: time.Nanosecond},
		Ask:     func(_ context.Context, m inbox.Missing) error { asked = append(asked, m); return failure },
	})
	require.NoError(t, err)
	r := &rig{s, pool}
	handle := func(bodies ...string) (err error) {
		t.Helper()
		log.Reset()
		asked = nil
		response, err := r.Handle(ctx, batch(bodies...))
		require.Empty(t, response.BatchItemFailures)
		return err
	}
	require.NoError(t, handle())
	require.Contains(t, log.String(), `msg="car stats: held" hop=6 FunctionName=carStats held=0 given_up=0`)
	car := history(false, kinds[0], kinds[1], kinds[2])
	require.NoError(t, handle(car[0].body(), car[2].body()))
	require.Contains(t, log.String(), "new=1 duplicates=0 gaps=0 late=0 failed=0 held=1")
	require.Empty(t, asked)

	missing := fmt.Sprintf("aggregate_type=Car aggregate_id=%s first_version=2 last_version=2", car[0].car)
	require.NoError(t, handle())
	require.Contains(t, log.String(), `level=WARN msg="car stats: versions are missing" hop=6 `+missing)
	require.Contains(t, log.String(), "held=1 given_up=0")
	require.Len(t, asked, 1)
	failure = errors.New("no replay")
	require.ErrorContains(t, handle(), "no replay", "the function fails, so that somebody hears of it")
	failure = nil

	_, err = pool.Exec(ctx, "UPDATE inbox_held SET held_at = now() - interval '61 minutes'")
	require.NoError(t, err)
	require.NoError(t, handle())
	require.Contains(t, log.String(), `level=ERROR msg="car stats: gave up waiting for versions" hop=6 `+missing)
	require.Contains(t, log.String(), "held=1 given_up=1")
	require.Empty(t, asked, "it asks no more")

	asTheyCome := newSubscriber(t, pool, false)
	for _, messages := range [][]string{nil, {car[1].body()}} {
		_, err = asTheyCome.Handle(ctx, batch(messages...))
		require.ErrorContains(t, err, "1 events are held", "their messages are deleted, so nobody else would count them")
	}
	require.NoError(t, handle(car[1].body()))
	require.Equal(t, expected([][]fact{car}), r.totals(t))
	_, err = asTheyCome.Handle(ctx, batch(car[1].body()))
	require.NoError(t, err)
}

// An event that cannot be counted fails by itself, and not together with the event that releases it.
func TestPoisonIsNotHeld(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool
	r := &rig{newSubscriber(t, pool, true), pool}
	car := history(false, kinds[0], kind{})
	response, err := r.Handle(ctx, batch(car[1].body(), car[0].body()))
	require.NoError(t, err)
	require.Equal(t, []string{"m0"}, failed(response))
	require.Equal(t, []total{{kinds[0], 1, 1}}, r.totals(t))
}
