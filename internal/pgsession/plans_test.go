package pgsession_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// onlineChanges are what a migration may do to a table while requests flow.
var onlineChanges = append([]string{
	"ALTER TABLE cars ADD COLUMN note text",
	"ALTER TABLE cars RENAME COLUMN note TO remark",
	"ALTER TABLE cars DROP COLUMN remark",
	"ALTER TABLE idempotency ALTER COLUMN body TYPE varchar",
	"ALTER TABLE outbox ADD COLUMN note text",
	"ALTER TABLE inbox_aggregate ALTER COLUMN aggregate_id TYPE varchar(300)",
}, domain.Alterations...)

// A prepared statement that returns a column of another type than when it was prepared is refused by the server. No request and no
// message may fail for it, and none may be made twice.
func TestNoRequestFailsWhileColumnsChange(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	lives := []func(*testing.T, *pgxpool.Pool) func() error{routes, messages}
	rounds := make([]atomic.Int64, len(lives))
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(group.Wait)
	t.Cleanup(stop)
	failures := make([]error, len(lives))
	for i, life := range lives {
		config, err := pgxpool.ParseConfig(db.URL + "&pool_max_conns=2")
		require.NoError(t, err)
		pool, err := pgxpool.NewWithConfig(context.Background(), config)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		live := life(t, pool)
		group.Go(func() {
			for ctx.Err() == nil {
				failures[i] = errors.Join(failures[i], live())
				rounds[i].Add(1)
			}
		})
	}
	// There are two rounds. The first may have begun before the change. The second uses every
	// statement after it.
	twoMore := func(after string) {
		for i := range rounds {
			want := rounds[i].Load() + 2
			labtest.Eventually(t, "two rounds after "+after, func() bool { return rounds[i].Load() >= want })
		}
	}
	twoMore("the start")
	for _, change := range onlineChanges {
		_, err := db.Pool.Exec(t.Context(), change)
		require.NoError(t, err, change)
		twoMore(change)
	}
	stop()
	group.Wait()
	require.NoError(t, errors.Join(failures...))
	var cars, written, counted int64
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM cars) + (SELECT sum(cars) FROM car_stats)::bigint,
		(SELECT count(*) FROM outbox), (SELECT sum(changes) FROM car_stats)::bigint`).Scan(&cars, &written, &counted))
	require.Zero(t, cars, "each round deletes its cars")
	require.Equal(t, 5*rounds[0].Load(), written, "no change was made twice")
	require.Equal(t, 3*rounds[1].Load(), counted, "no event was counted twice")
}

// routes returns a round of requests that uses every route, for two cars from their beginning to
// their end.
func routes(t *testing.T, pool *pgxpool.Pool) func() error {
	log := labtest.NewLog(t)
	api, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	require.NoError(t, err)
	return func() (failed error) {
		ask := func(method, path, body string, header http.Header) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(context.Background(), method, cmp.Or(path, "/no-location"), strings.NewReader(body))
			r.Header = header.Clone()
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			return w
		}
		do := func(method, path, body string, header http.Header, want int) *httptest.ResponseRecorder {
			w := ask(method, path, body, header)
			if w.Code != want {
				failed = errors.Join(failed, fmt.Errorf("%s %s: %d %s", method, path, w.Code, w.Body))
			}
			return w
		}
		none := http.Header{}
		key := func() http.Header { return http.Header{"Idempotency-Key": {uuid.NewString()}} }
		car := domain.Sample(0)
		path := do("POST", "/cars", car, none, 201).Header().Get("Location")
		twice := key()
		keyed := do("POST", "/cars", car, twice, 201).Header().Get("Location")
		do("POST", "/cars", car, twice, 201)
		do("GET", path, "", none, 200)
		do("GET", "/cars", "", none, 200)
		do("PATCH", path, domain.Change(1, "red"), key(), 200)
		health := ask("GET", "/healthz", "", none)
		for health.Code == 503 { // the database has five seconds for it, and a busy one may need more
			health = ask("GET", "/healthz", "", none)
		}
		if health.Code != 200 {
			failed = errors.Join(failed, fmt.Errorf("GET /healthz: %d %s", health.Code, health.Body))
		}
		do("DELETE", path, "", none, 204)
		do("DELETE", keyed, "", key(), 204)
		return failed
	}
}

// messages returns a round of carstats, which is the events of one car, a batch each.
func messages(t *testing.T, pool *pgxpool.Pool) func() error {
	subscriber, err := carstats.New(carstats.Config{Pool: pool, Logger: slog.New(slog.NewJSONHandler(labtest.NewLog(t), nil))})
	require.NoError(t, err)
	return func() (failed error) {
		car := uuid.NewString()
		for i, eventType := range []string{"CarCreated", "CarUpdated", "CarDeleted"} {
			body, err := json.Marshal(map[string]any{
				"detail-type": eventType, "source": "outbox.car", "resources": []string{}, "detail": map[string]any{
					"aggregateId": car, "aggregateType": "Car", "aggregateVersion": i + 1, "eventId": uuid.NewString(),
					"eventData": json.RawMessage(domain.Sample(i)), "timestamp": "2026-11-23T09:15:00.000001Z",
				},
			})
			failed = errors.Join(failed, err)
			answer, err := subscriber.Handle(context.Background(), events.SQSEvent{Records: []events.SQSMessage{{MessageId: "m", Body: string(body)}}})
			failed = errors.Join(failed, err)
			if len(answer.BatchItemFailures) > 0 {
				failed = errors.Join(failed, fmt.Errorf("carstats failed %s", eventType))
			}
		}
		return failed
	}
}

func TestReplanTriesAgainOnlyWhatTheServerHasNotExecuted(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.NewEmpty(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for name, test := range map[string]struct {
		err   error
		times int
	}{
		"StalePlan":  {&pgconn.PgError{Code: "0A000"}, 3},
		"Constraint": {&pgconn.PgError{Code: "23505"}, 1},
		"NoAnswer":   {errors.New("connection reset"), 1},
		"None":       {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			times := 0
			err := pgsession.Replan(t.Context(), conn, func() error {
				times++
				return test.err
			})
			require.Equal(t, test.err, err)
			require.Equal(t, test.times, times)
		})
	}
}
