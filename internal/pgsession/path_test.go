package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// tables are those of the migrations that a statement of ours names.
var tables = []string{"cars", "outbox", "idempotency", "inbox", "inbox_aggregate", "inbox_held", "car_stats", "car_stats_car"}

// path has the programs, each connected as its main connects it, as one role with hostile settings.
type path struct {
	*role
	kinesis  *kinesis.Client
	secrets  *secretsmanager.Client
	database rdsdb.Config
	relayURL string
}

func newPath(t *testing.T) *path {
	t.Helper()
	p := &path{role: newRole(t)}
	c := config(t, p.url)
	_, sdk := awstest.Start(t, awslocal.Config{
		Streams: []awslocal.Stream{{Name: "outbox", Shards: 1}},
		Secrets: map[string]string{"db": fmt.Sprintf(`{"username":%q,"password":"hostile"}`, p.name)},
	})
	p.kinesis, p.secrets = kinesis.NewFromConfig(sdk), secretsmanager.NewFromConfig(sdk)
	p.database = rdsdb.Config{Host: c.Host, Port: c.Port, Name: c.Database, User: p.name, SecretARN: "db", ApplicationName: "test"}
	p.relayURL = p.url
	_, err := migrate.Up(t.Context(), c, migrate.Options{})
	require.NoError(t, err)
	// Tables of the same names, where "$user" finds them. What is read or written there is lost.
	for _, table := range tables {
		p.exec(t, fmt.Sprintf("CREATE TABLE %s.%s (LIKE public.%[2]s INCLUDING ALL)", p.name, table))
		p.exec(t, fmt.Sprintf("ALTER TABLE %s.%s OWNER TO %[1]s", p.name, table))
	}
	return p
}

func (p *path) ask(t *testing.T, sql string, args ...any) (answer string) {
	t.Helper()
	require.NoError(t, p.server.QueryRow(t.Context(), sql, args...).Scan(&answer))
	return answer
}

func (p *path) count(t *testing.T, table string) string {
	t.Helper()
	return p.ask(t, "SELECT count(*)::text FROM "+table)
}

// The whole path runs as a role whose every setting differs from the one that we depend on.
func TestThePathUnderAHostileRole(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	t.Run("MigrationsMakeTheSameTables", p.testMigrations)
	t.Run("TheAPIWritesEachChangeOnce", p.testAPI)
	t.Run("TheRelayLoadsAndStreams", p.testRelay)
	t.Run("CarStatsCountsOnce", p.testCarStats)
	t.Run("RetentionDeletesWhatIsOver", p.testRetention)
	for _, table := range tables {
		require.Equal(t, "0", p.count(t, p.name+"."+table), "a statement went to %s's own %s", p.name, table)
	}
}

func (p *path) testMigrations(t *testing.T) {
	for _, table := range append(tables, "goose_db_version") {
		require.Equal(t, "heap", p.ask(t, `SELECT amname::text FROM pg_class JOIN pg_am ON pg_am.oid = relam
			WHERE relname = $1 AND relnamespace = 'public'::regnamespace`, table))
	}
	files, version, err := migrate.Status(t.Context(), config(t, p.url), migrate.Options{})
	require.NoError(t, err)
	require.EqualValues(t, len(files), version)
	require.WithinDuration(t, time.Now(), files[0].AppliedAt, time.Hour, "Kathmandu is 5:45 ahead")
}

func (p *path) testAPI(t *testing.T) {
	pool, err := rdsdb.New(p.database, p.secrets)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	api, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	do := func(method, path, body string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		request.Header.Set("Idempotency-Key", "key-"+method)
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		api.ServeHTTP(answer, request)
		return answer
	}
	const name = `Škoda 車 a\b 'c' "d" NULL`
	car := domain.Named(name)
	first := do(http.MethodPost, "/cars", car)
	require.Equal(t, http.StatusCreated, first.Code, first.Body)
	again := do(http.MethodPost, "/cars", car)
	require.Equal(t, http.StatusCreated, again.Code, again.Body)
	require.Equal(t, first.Body.String(), again.Body.String(), "the same key has the same answer")
	path := first.Header().Get("Location")
	changed := do(http.MethodPatch, path, domain.Change(1, "once"))
	require.Equal(t, http.StatusOK, changed.Code, changed.Body)
	require.Equal(t, changed.Body.String(), do(http.MethodPatch, path, domain.Change(1, "once")).Body.String())
	require.Contains(t, do(http.MethodGet, path, "").Body.String(), `Škoda 車`)
	require.Equal(t, "2", p.count(t, "public.outbox"))
	require.Contains(t, domain.Title([]byte(p.ask(t, "SELECT to_jsonb(c)::text FROM public.cars AS c"))), name)
	require.Equal(t, "on", p.showAs(t, pool, "synchronous_commit"))

	// Two at once have to wait for each other, not to fail.
	var group sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		group.Go(func() {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, path, strings.NewReader(domain.Change(2, "at once")))
			request.Header.Set("Content-Type", "application/json")
			answer := httptest.NewRecorder()
			api.ServeHTTP(answer, request)
			codes[i] = answer.Code
		})
	}
	group.Wait()
	for _, code := range codes {
		require.Equal(t, http.StatusOK, code)
	}
	require.Equal(t, "10", p.count(t, "public.outbox"))
}

func (p *path) showAs(t *testing.T, pool *rdsdb.Pool, name string) string {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	return show(t, conn.Conn(), name)
}

func (p *path) testRelay(t *testing.T) {
	log := labtest.NewLog(t)
	database, err := rdsdb.NewURLLogin(p.relayURL, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{
		Database: database, Stream: "outbox", Slot: p.name, Kinesis: p.kinesis, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	labtest.Eventually(t, "the relay to stream", func() bool {
		return p.ask(t, `SELECT count(*)::text FROM pg_stat_replication AS reader JOIN pg_replication_slots AS slot ON slot.active_pid = reader.pid
			WHERE slot.slot_name = $1 AND reader.state IN ('streaming', 'catchup')`, p.name) == "1"
	})
	_, err = p.server.Exec(t.Context(), `INSERT INTO public.outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		VALUES (gen_random_uuid(), 'Car', 'streamed', 1, 'CarCreated', '{"make": "Škoda 車", "price": 1e300}')`)
	require.NoError(t, err)
	records := map[uuid.UUID]outbox.Record{}
	labtest.Eventually(t, "11 events", func() bool {
		for _, record := range p.stream(t) {
			records[record.Row.ID] = record
		}
		return len(records) == 11
	})
	rows, err := p.server.Query(t.Context(), "SELECT id, event_data::text, created_at FROM public.outbox")
	require.NoError(t, err)
	var id uuid.UUID
	var data string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &data, &at}, func() error {
		require.Equal(t, data, string(records[id].Row.EventData))
		require.True(t, at.Equal(records[id].Row.CreatedAt), "%s is not %s", records[id].Row.CreatedAt, at)
		return nil
	})
	require.NoError(t, err)
}

func (p *path) stream(t *testing.T) (all []outbox.Record) {
	t.Helper()
	ctx := t.Context()
	shards, err := p.kinesis.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String("outbox")})
	require.NoError(t, err)
	iterator, err := p.kinesis.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: aws.String("outbox"), ShardId: shards.Shards[0].ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	page, err := p.kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator.ShardIterator})
	require.NoError(t, err)
	for _, raw := range page.Records {
		record, _, err := outbox.ParseRecord(raw.Data)
		require.NoError(t, err)
		all = append(all, record)
	}
	return all
}

func (p *path) testCarStats(t *testing.T) {
	pool, err := rdsdb.New(p.database, p.secrets)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	subscriber, err := carstats.New(carstats.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	car := uuid.New()
	data := domain.Named("Škoda 車")
	kind, err := domain.Kind([]byte(data))
	require.NoError(t, err)
	body := fmt.Sprintf(`{"detail-type":"CarCreated","source":"outbox.car","resources":[],"detail":{"aggregateId":%q,"aggregateType":"Car",
		"aggregateVersion":1,"eventId":%q,"eventData":%s,"timestamp":"2026-11-23T09:15:00.000001Z"}}`, car, uuid.New(), data)
	message := events.SQSMessage{MessageId: "m", Body: body, Attributes: map[string]string{"ApproximateReceiveCount": "1"}}
	for range 2 {
		answer, err := subscriber.Handle(t.Context(), events.SQSEvent{Records: []events.SQSMessage{message, message}})
		require.NoError(t, err)
		require.Empty(t, answer.BatchItemFailures)
	}
	require.Equal(t, kind+" 1 1", p.ask(t, "SELECT concat_ws(' ', kind, cars, changes) FROM ("+strings.Replace(domain.Totals, "FROM ", "FROM public.", 1)+") AS t"))
}

func (p *path) testRetention(t *testing.T) {
	p.exec(t, "UPDATE public.idempotency SET expires_at = now() - interval '1 hour'")
	p.exec(t, `INSERT INTO public.outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		VALUES (gen_random_uuid(), 'Car', 'old', 1, 'CarCreated', '{}', now() - interval '20 days')`)
	connection, err := rdsdb.ConnConfig(t.Context(), p.database, p.secrets, pgsession.Limits{Statement: 30 * time.Second})
	require.NoError(t, err)
	conn := connect(t, connection)
	keys, err := retention.PurgeKeys(t.Context(), conn)
	require.NoError(t, err)
	require.EqualValues(t, 2, keys)
	purger, err := retention.New(retention.Config{Slot: p.name, Days: 14, StreamRetention: 168 * time.Hour, Wait: labtest.Patience})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	mover := connect(t, config(t, strings.Replace(p.url, "?", "?statement_timeout=0&", 1)))
	group.Go(func() { // as a relay moves the slot on
		for ctx.Err() == nil {
			_, _ = mover.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", p.name)
		}
	})
	result, err := purger.Purge(t.Context(), conn)
	cancel()
	group.Wait()
	require.NoError(t, err)
	require.EqualValues(t, 1, result.Deleted)
	require.Equal(t, "11", p.count(t, "public.outbox"))
}

// Rows that a policy hides from the relay would be missing from the load, and nothing would show it.
func TestTheRelayRefusesRowsThatAPolicyHides(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	_, err := p.server.Exec(t.Context(), `INSERT INTO public.outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		VALUES (gen_random_uuid(), 'Car', '1', 1, 'CarCreated', '{}')`)
	require.NoError(t, err)
	p.exec(t, "ALTER TABLE public.outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
	hidden := connect(t, config(t, p.url))
	var rows int
	require.NoError(t, hidden.QueryRow(t.Context(), "SELECT count(*) FROM public.outbox").Scan(&rows))
	require.Zero(t, rows, "the policy hides the row")

	database, err := rdsdb.NewURLLogin(p.relayURL, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{Database: database, Stream: "outbox", Slot: p.name, Kinesis: p.kinesis, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	err = relay.Run(t.Context())
	var setup *walrelay.SetupError
	require.ErrorAs(t, err, &setup)
	require.Contains(t, setup.Problem, "row-level security")
	require.Contains(t, setup.Remedy, "BYPASSRLS")
	require.Equal(t, "0", p.count(t, "pg_replication_slots WHERE slot_name = '"+p.name+"'"), "a slot would say that the load was done")
	require.Empty(t, p.stream(t))
}
