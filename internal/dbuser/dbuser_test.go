package dbuser_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/canary"
	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/dbuser"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/postgres/postgrestest"
	"rds-outbox-demo/migrate"
)

// rds is a server that is like RDS where it matters here. Passwords are checked, the owner of everything is not a superuser, and
// rds_replication stands for the attribute that the owner cannot give. It does not have the rights that RDS ties to rds_replication.
type rds struct {
	master *pgx.ConnConfig
	log    string // the server's log file, with every statement
}

func startRDS(t *testing.T) rds {
	t.Helper()
	server, config := postgrestest.Start(t, map[string]string{"log_statement": "all"})
	super, err := pgx.ParseConfig(server.URL())
	require.NoError(t, err)
	conn := connect(t, super)
	for _, statement := range []string{
		"CREATE ROLE rds_replication",
		"CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'master'",
		"GRANT rds_replication TO master WITH ADMIN OPTION",
		"CREATE DATABASE app OWNER master",
		"REVOKE CONNECT ON DATABASE app FROM PUBLIC",
	} {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	// From PostgreSQL 15 on the owner of the database owns schema public, too. On 14 it is the superuser's until it gives it away.
	app := super.Copy()
	app.Database = "app"
	_, err = connect(t, app).Exec(t.Context(), "ALTER SCHEMA public OWNER TO master")
	require.NoError(t, err)
	master := super.Copy()
	master.User, master.Password, master.Database = "master", "master", "app"
	_, err = migrate.Up(t.Context(), master, migrate.Options{})
	require.NoError(t, err)
	return rds{master: master, log: filepath.Join(config.Dir, "server.log")}
}

func TestOnRDS(t *testing.T) {
	t.Parallel()
	server := startRDS(t)

	t.Run("APIUserWritesCarsAndEventsAndNothingElse", func(t *testing.T) {
		t.Parallel()
		login := dbuser.Login{Name: unique("api"), Password: rand.Text()}
		require.NoError(t, ensure(t, server.master, dbuser.API, login))
		requireNoPower(t, server.master, login.Name)
		pool, err := pgxpool.New(t.Context(), url(server.master, login))
		require.NoError(t, err)
		t.Cleanup(pool.Close)

		api, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		send := func(method, path, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			answer := httptest.NewRecorder()
			api.ServeHTTP(answer, r)
			return answer
		}
		answer := send(http.MethodPost, "/cars", domain.Sample(0))
		require.Equal(t, http.StatusCreated, answer.Code, answer.Body)
		path := answer.Header().Get("Location")
		answer = send(http.MethodPatch, path, domain.Change(1, "Red"))
		require.Equal(t, http.StatusOK, answer.Code, answer.Body)
		answer = send(http.MethodDelete, path, "")
		require.Equal(t, http.StatusNoContent, answer.Code, answer.Body)

		refused(t, pool, "SELECT * FROM outbox", "UPDATE outbox SET traceparent = NULL", "DELETE FROM outbox", "TRUNCATE outbox",
			"DROP TABLE cars", "SELECT * FROM car_stats", "CREATE TABLE mine (n int)", "CREATE SCHEMA mine", "SELECT * FROM goose_db_version",
			"SELECT pg_create_logical_replication_slot('x', 'test_decoding')", "SET ROLE outbox_relay", "CREATE ROLE x")
	})

	t.Run("DMSUserReadsEventsAndWritesItsHeartbeat", func(t *testing.T) {
		t.Parallel()
		login := dbuser.Login{Name: unique("dms"), Password: rand.Text()}
		for range 2 { // the second time changes nothing
			require.NoError(t, ensure(t, server.master, dbuser.DMS, login))
			requireNoPower(t, server.master, login.Name)
			pool, err := pgxpool.New(t.Context(), url(server.master, login))
			require.NoError(t, err)
			for _, statement := range []string{
				"SELECT * FROM outbox",
				"CREATE TABLE dms_heartbeat.awsdms_heartbeat (at timestamptz)",
				"INSERT INTO dms_heartbeat.awsdms_heartbeat VALUES (now())",
				"DROP TABLE dms_heartbeat.awsdms_heartbeat",
			} {
				_, err := pool.Exec(t.Context(), statement)
				require.NoError(t, err, statement)
			}
			refused(t, pool, "UPDATE outbox SET traceparent = NULL", "DELETE FROM outbox", "TRUNCATE outbox", "SELECT * FROM cars",
				"INSERT INTO outbox SELECT * FROM outbox", "CREATE TABLE public.mine (n int)", "CREATE SCHEMA mine", "SET ROLE outbox_api",
				"DROP SCHEMA dms_heartbeat")
			pool.Close()
		}
		require.Equal(t, "true false", ask(t, server.master,
			"SELECT pg_has_role($1, 'rds_replication', 'USAGE')::text || ' ' || rolreplication FROM pg_roles WHERE rolname = $1", login.Name))
		_, err := connect(t, server.master).Exec(t.Context(), "SET ROLE "+login.Name)
		require.Equal(t, "42501", code(t, err), "the owner cannot act as the user afterwards")

		statements, err := os.ReadFile(server.log)
		require.NoError(t, err)
		require.NotRegexp(t, `GRANT "?`+login.Name+`"? TO`, string(statements), "nor could at any time")
	})

	// Before, the schema belonged to the DMS user.
	t.Run("AHeartbeatOfAnOlderProgramStays", func(t *testing.T) {
		t.Parallel()
		owner := server.master.Copy()
		owner.Database = unique("heartbeat")
		_, err := connect(t, server.master).Exec(t.Context(), "CREATE DATABASE "+owner.Database)
		require.NoError(t, err)
		login := dbuser.Login{Name: unique("dms"), Password: rand.Text()}
		_, err = connect(t, owner).Exec(t.Context(), fmt.Sprintf(
			"CREATE ROLE %[1]s; GRANT %[1]s TO CURRENT_USER; CREATE SCHEMA dms_heartbeat AUTHORIZATION %[1]s; REVOKE %[1]s FROM CURRENT_USER", login.Name))
		require.NoError(t, err)
		require.NoError(t, ensure(t, owner, dbuser.DMS, login))

		err = ensure(t, owner, dbuser.DMS, dbuser.Login{Name: unique("other"), Password: "x"})
		require.ErrorContains(t, err, fmt.Sprintf("schema dms_heartbeat belongs to %q", login.Name))
		require.Equal(t, "0", ask(t, owner, "SELECT count(*)::text FROM pg_roles WHERE rolname LIKE 'other%'"), "nothing half done")
	})

	t.Run("RetentionUserDeletesEventsAndReadsNone", func(t *testing.T) {
		t.Parallel()
		login := dbuser.Login{Name: unique("retention"), Password: rand.Text()}
		require.NoError(t, ensure(t, server.master, dbuser.Retention, login))
		requireNoPower(t, server.master, login.Name)
		pool, err := pgxpool.New(t.Context(), url(server.master, login))
		require.NoError(t, err)
		t.Cleanup(pool.Close)

		queries := dbgen.New(pool) // what handlers/retention asks
		_, err = queries.RetentionDue(t.Context(), dbgen.RetentionDueParams{Hours: 1 << 20, MaxRows: 1})
		require.NoError(t, err)
		position, err := queries.RetentionPosition(t.Context())
		require.NoError(t, err)
		_, err = queries.RetentionSlot(t.Context(), dbgen.RetentionSlotParams{Slot: "none", LSN: position.LSN})
		require.ErrorIs(t, err, pgx.ErrNoRows)
		_, err = queries.RetentionDelete(t.Context(), dbgen.RetentionDeleteParams{Slot: "none", LSN: position.LSN})
		require.NoError(t, err)
		_, err = queries.RetentionCount(t.Context(), 1<<20)
		require.NoError(t, err)

		refused(t, pool, "SELECT * FROM outbox", "SELECT event_data FROM outbox", "UPDATE outbox SET traceparent = NULL", "TRUNCATE outbox",
			"INSERT INTO outbox (id) VALUES (gen_random_uuid())", "SELECT * FROM cars", "DELETE FROM cars", "CREATE TABLE public.mine (n int)",
			"SELECT pg_drop_replication_slot('x')", "SET ROLE outbox_api")
	})

	t.Run("CanaryUserAppendsAndReadsNothing", func(t *testing.T) {
		t.Parallel()
		login := dbuser.Login{Name: unique("canary"), Password: rand.Text()}
		require.NoError(t, ensure(t, server.master, dbuser.Canary, login))
		requireNoPower(t, server.master, login.Name)
		pool, err := pgxpool.New(t.Context(), url(server.master, login))
		require.NoError(t, err)
		t.Cleanup(pool.Close)

		_, err = canary.Beat(t.Context(), pool, time.Now())
		require.NoError(t, err)
		refused(t, pool, "SELECT id FROM outbox", "UPDATE outbox SET traceparent = NULL", "DELETE FROM outbox", "TRUNCATE outbox",
			"SELECT * FROM cars", "SELECT * FROM idempotency", "SELECT * FROM inbox", "CREATE TABLE public.mine (n int)", "SET ROLE outbox_api")
	})

	t.Run("CarStatsUserCountsAndSeesNothingOfTheService", func(t *testing.T) {
		t.Parallel()
		login := dbuser.Login{Name: unique("carstats"), Password: rand.Text()}
		require.NoError(t, ensure(t, server.master, dbuser.CarStats, login))
		requireNoPower(t, server.master, login.Name)
		pool, err := pgxpool.New(t.Context(), url(server.master, login))
		require.NoError(t, err)
		t.Cleanup(pool.Close)

		subscriber, err := carstats.New(carstats.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		response, err := subscriber.Handle(t.Context(), events.SQSEvent{Records: []events.SQSMessage{{MessageId: "m", Body: `{
			"detail-type":"CarCreated","source":"outbox.car","detail":{"aggregateId":"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12","aggregateType":"Car",
			"aggregateVersion":1,"eventId":"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f13","eventData":` + domain.Sample(0) + `,"timestamp":"2026-11-23T09:15:00Z"}}`}}})
		require.NoError(t, err)
		require.Empty(t, response.BatchItemFailures)
		_, err = inbox.Forget(t.Context(), pool, "carstats", time.Hour)
		require.NoError(t, err)

		refused(t, pool, "SELECT * FROM outbox", "DELETE FROM outbox", "SELECT * FROM cars", "UPDATE inbox SET aggregate_version = 1",
			"UPDATE inbox_held SET event_data = '{}'", "DELETE FROM inbox_aggregate", "DELETE FROM car_stats", "TRUNCATE inbox", "CREATE TABLE public.mine (n int)", "SET ROLE outbox_api")
	})

	t.Run("NewPasswordReplacesTheOldAndKeepsSessions", func(t *testing.T) {
		t.Parallel()
		user := unique("rotated")
		first, second := dbuser.Login{Name: user, Password: "it's \"first\" $1 %I \\"}, dbuser.Login{Name: user, Password: rand.Text()}
		require.NoError(t, ensure(t, server.master, dbuser.API, first))
		session, err := pgx.ConnectConfig(t.Context(), as(server.master, first))
		require.NoError(t, err)
		t.Cleanup(func() { _ = session.Close(context.Background()) })

		require.NoError(t, ensure(t, server.master, dbuser.API, first))
		again, err := pgx.ConnectConfig(t.Context(), as(server.master, first))
		require.NoError(t, err, "the same password once more")
		require.NoError(t, again.Close(t.Context()))

		require.NoError(t, ensure(t, server.master, dbuser.API, second))
		_, err = pgx.ConnectConfig(t.Context(), as(server.master, first))
		require.Equal(t, "28P01", code(t, err), "invalid_password")
		again, err = pgx.ConnectConfig(t.Context(), as(server.master, second))
		require.NoError(t, err)
		require.NoError(t, again.Close(t.Context()))
		_, err = session.Exec(t.Context(), "SELECT * FROM cars")
		require.NoError(t, err)

		written, err := os.ReadFile(server.log)
		require.NoError(t, err)
		verifiers := regexp.MustCompile(`: ALTER ROLE `+user+` LOGIN PASSWORD '(SCRAM-SHA-256\$4096:.*)'`).FindAllSubmatch(written, -1)
		require.Len(t, verifiers, 3)
		require.NotEqual(t, verifiers[0][1], verifiers[1][1], "every one has its own salt")
		require.NotContains(t, string(written), second.Password)
		require.NotContains(t, string(written), "first")
	})

	t.Run("TransactionsTakeTurns", func(t *testing.T) {
		t.Parallel()
		holder, waiter := connect(t, server.master), connect(t, server.master)
		tx, err := holder.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, dbuser.Lock(t.Context(), tx))

		_, err = waiter.Exec(t.Context(), "SET lock_timeout = '50ms'")
		require.NoError(t, err)
		err = pgx.BeginFunc(t.Context(), waiter, func(tx pgx.Tx) error { return dbuser.Lock(t.Context(), tx) })
		require.ErrorContains(t, err, "waiting for another program that sets passwords")
		require.NoError(t, tx.Commit(t.Context()))
		_, err = waiter.Exec(t.Context(), "SET lock_timeout = 0") // the tests beside this one take turns, too
		require.NoError(t, err)
		require.NoError(t, pgx.BeginFunc(t.Context(), waiter, func(tx pgx.Tx) error { return dbuser.Lock(t.Context(), tx) }))
	})

	for name, test := range map[string]struct {
		login   dbuser.Login
		message string
	}{
		"Injection":     {dbuser.Login{Name: `x" SUPERUSER; --`, Password: "x"}, "the name must be 1 to 63 lower-case letters"},
		"NoName":        {dbuser.Login{Password: "x"}, "the name must be 1 to 63 lower-case letters"},
		"NameTooLong":   {dbuser.Login{Name: strings.Repeat("a", 64), Password: "x"}, "the name must be 1 to 63 lower-case letters"},
		"LineEnd":       {dbuser.Login{Name: "a\n", Password: "x"}, "the name must be 1 to 63 lower-case letters"},
		"Owner":         {dbuser.Login{Name: "master", Password: "x"}, "a component's secret must name a user of its own"},
		"EmptyPassword": {dbuser.Login{Name: "a"}, "the password is empty"},
		"ReservedName":  {dbuser.Login{Name: "pg_api", Password: "x"}, "reserved"},
	} {
		t.Run("Refuses"+name, func(t *testing.T) {
			t.Parallel()
			err := ensure(t, server.master, dbuser.API, test.login)
			require.ErrorContains(t, err, test.message)
			require.ErrorContains(t, err, fmt.Sprintf("making database user %q", test.login.Name))
		})
	}
}

// A server that is not RDS has no rds_replication. There the user can be tried with a slot of the plugin of DMS.
func TestDMSUserReplicates(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	login := dbuser.Login{Name: unique("dms"), Password: rand.Text()}
	t.Cleanup(func() { // roles are the server's
		for _, statement := range []string{"DROP OWNED BY ", "DROP ROLE "} {
			_, err := db.Pool.Exec(context.Background(), statement+login.Name)
			require.NoError(t, err)
		}
	})
	require.NoError(t, ensure(t, owner, dbuser.DMS, login))

	slot := unique("slot")
	user := connect(t, as(owner, login))
	_, err = user.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot)
	require.NoError(t, err)
	_, err = db.Pool.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		VALUES (gen_random_uuid(), 'Car', 'seen-in-wal', 1, 'CarCreated', '{}')`)
	require.NoError(t, err)
	var changes string
	err = user.QueryRow(t.Context(), "SELECT string_agg(data, '') FROM pg_logical_slot_get_changes($1, NULL, NULL)", slot).Scan(&changes)
	require.NoError(t, err)
	require.Contains(t, changes, "seen-in-wal")
	_, err = user.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", slot)
	require.NoError(t, err)
}

// requireNoPower fails unless the user can neither alter table outbox, its publication or their
// schema nor act as a role that can.
func requireNoPower(t *testing.T, owner *pgx.ConnConfig, user string) {
	t.Helper()
	powers := `SELECT concat_ws(', ',
			CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolbypassrls THEN 'bypassrls' END,
			CASE WHEN pg_has_role($1, (SELECT relowner FROM pg_class WHERE oid = 'public.outbox'::regclass), 'MEMBER') THEN 'table' END,
			CASE WHEN pg_has_role($1, (SELECT pubowner FROM pg_publication WHERE pubname = 'outbox_publication'), 'MEMBER') THEN 'publication' END,
			CASE WHEN pg_has_role($1, (SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'MEMBER') THEN 'schema' END,
			CASE WHEN has_schema_privilege($1, 'public', 'CREATE') THEN 'create in schema' END,
			CASE WHEN has_database_privilege($1, current_database(), 'CREATE') THEN 'create in database' END)
		FROM pg_roles WHERE rolname = $1`
	require.Empty(t, ask(t, owner, powers, user))
	require.Equal(t, "createrole, table, publication, schema, create in schema, create in database", ask(t, owner, powers, owner.User), "the owner has them")
}

func ensure(t *testing.T, owner *pgx.ConnConfig, c dbuser.Component, login dbuser.Login) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), connect(t, owner), func(tx pgx.Tx) error {
		if err := dbuser.Lock(t.Context(), tx); err != nil {
			return err
		}
		return dbuser.Ensure(t.Context(), tx, c, login)
	})
}

func as(owner *pgx.ConnConfig, login dbuser.Login) *pgx.ConnConfig {
	user := owner.Copy()
	user.User, user.Password = login.Name, login.Password
	return user
}

func url(owner *pgx.ConnConfig, login dbuser.Login) string {
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", login.Name, login.Password, owner.Host, owner.Port, owner.Database)
}

func connect(t *testing.T, config *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func ask(t *testing.T, config *pgx.ConnConfig, sql string, args ...any) (answer string) {
	t.Helper()
	require.NoError(t, connect(t, config).QueryRow(t.Context(), sql, args...).Scan(&answer))
	return answer
}

// refused runs statements that must fail for lack of rights.
func refused(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := pool.Exec(t.Context(), statement)
		require.Equal(t, "42501", code(t, err), statement)
	}
}

func code(t *testing.T, err error) string {
	t.Helper()
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	return refused.Code
}

func unique(name string) string { return name + "_" + strings.ToLower(rand.Text()[:10]) }
