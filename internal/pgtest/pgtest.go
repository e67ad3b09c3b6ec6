// Package pgtest gives every test a real PostgreSQL database of its own, cloned from a migrated template.
package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver that pgtestdb opens
	"github.com/peterldowns/pgtestdb"
	"github.com/peterldowns/pgtestdb/migrators/common"

	"rds-outbox-demo/migrate"
	migrations "rds-outbox-demo/sql/migrations"
)

// EnvURL names the one variable that tests read: a server with wal_level=logical and a user who may do anything. `make test`
// starts such a server and sets it.
const EnvURL = "TEST_DATABASE_URL"

// DB is one test's own database. It goes when the test passes and stays, its URL logged, when the test fails.
type DB struct {
	URL  string
	Pool *pgxpool.Pool
}

// New clones the migrated template for t. A test that starts a relay must stop it before it ends: PostgreSQL drops the idle
// slots of a database with it, but refuses while one is in use.
func New(t testing.TB) *DB {
	t.Helper()
	url := clone(t, migrator{})
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("opening the test database: %v", err)
	}
	t.Cleanup(func() {
		awaitIdleSlots(pool)
		pool.Close()
	})
	return &DB{URL: url, Pool: pool}
}

// awaitIdleSlots waits for the server to notice that a relay is gone, which takes it a moment. If it does not, dropping the database says so.
func awaitIdleSlots(pool *pgxpool.Pool) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // labtest.Patience. A walsender may be without a turn for long.
	defer cancel()
	for active := true; active && ctx.Err() == nil; {
		err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database() AND active)").Scan(&active)
		if err != nil {
			return
		}
		if active {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// NewEmpty returns the URL of a database of t's own without any table, for tests of the migrations themselves.
func NewEmpty(t testing.TB) string {
	t.Helper()
	return clone(t, pgtestdb.NoopMigrator{})
}

// NewWithEncoding returns the URL of an empty database of t's own whose text is not UTF-8, but
// LATIN1 or SQL_ASCII.
func NewWithEncoding(t testing.TB, encoding string) string {
	t.Helper()
	ctx := context.Background()
	config, err := pgx.ParseConfig(ServerURL(t))
	if err != nil {
		t.Fatalf("%s: %v", EnvURL, err)
	}
	server, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatalf("connecting to the test server: %v", err)
	}
	name := "encoded_" + strings.ToLower(rand.Text())
	create := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'", name, encoding)
	if server.PgConn().ParameterStatus("server_version") >= "15" {
		create += " LOCALE_PROVIDER libc" // the template's may hold UTF-8 only
	}
	if _, err := server.Exec(ctx, create); err != nil {
		t.Fatalf("%s: %v", create, err)
	}
	t.Cleanup(func() {
		if _, err := server.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping database %s: %v", name, err)
		}
		_ = server.Close(ctx)
	})
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", config.User, config.Password, config.Host, config.Port, name)
}

// RequireFilters skips t on a server before PostgreSQL 15, where publications have neither row
// filters nor column lists.
func RequireFilters(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	var version int
	if err := pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatalf("reading server_version_num: %v", err)
	}
	if version < 150000 {
		t.Skip("PostgreSQL 15 brought row filters and column lists")
	}
}

// PretendVersion makes pg_settings of the database show another server_version_num, such as 130023.
func PretendVersion(t testing.TB, url, version string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connecting to the test database: %v", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), `
		SET allow_system_table_mods = on;
		ALTER VIEW pg_catalog.pg_settings RENAME TO pg_true_settings;
		CREATE VIEW pg_catalog.pg_settings AS
		SELECT name, CASE name WHEN 'server_version_num' THEN '`+version+`' ELSE setting END AS setting FROM pg_catalog.pg_true_settings`)
	if err != nil {
		t.Fatalf("pretending version %s: %v", version, err)
	}
}

// Recollate makes the server compare the text of outbox's keys by ICU's order, in which a is before B, and leaves the entries of
// outbox_pkey in their places. A new version of the operating system's library or of ICU does the same.
func Recollate(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `DO $$ BEGIN
		SET LOCAL allow_system_table_mods = on;
		UPDATE pg_attribute SET attcollation = '"und-x-icu"'::regcollation
			WHERE attrelid IN ('outbox'::regclass, 'outbox_pkey'::regclass) AND attname IN ('aggregate_type', 'aggregate_id');
		UPDATE pg_index SET indcollation = replace(indcollation::text, '"default"'::regcollation::oid::text, '"und-x-icu"'::regcollation::oid::text)::oidvector
			WHERE indexrelid = 'outbox_pkey'::regclass;
	END $$`)
	if err != nil {
		t.Fatal(err)
	}
}

func clone(t testing.TB, template pgtestdb.Migrator) string {
	t.Helper()
	url := ServerURL(t)
	server, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatalf("%s: %v", EnvURL, err)
	}
	return pgtestdb.Custom(t, pgtestdb.Config{
		DriverName: "pgx",
		Host:       server.Host,
		Port:       fmt.Sprint(server.Port),
		User:       server.User,
		Password:   server.Password,
		Database:   server.Database,
		Options:    "sslmode=disable",
		// Roles and slots need a superuser; the least-privilege roles have tests of their own.
		TestRole:                  &pgtestdb.Role{Username: "pgtest", Password: "pgtest", Capabilities: "SUPERUSER"},
		ForceTerminateConnections: true,
	}, template).URL()
}

// ServerURL returns the test server's URL and fails the test when there is none.
func ServerURL(t testing.TB) string {
	t.Helper()
	url := os.Getenv(EnvURL)
	if url == "" {
		t.Fatalf("%s is not set: run `make test`, or point it at a PostgreSQL server with wal_level=logical", EnvURL)
	}
	return url
}

type migrator struct{}

func (migrator) Hash() (string, error) { return common.HashDirs(migrations.FS, "*.sql", ".") }

func (migrator) Migrate(ctx context.Context, _ *sql.DB, template pgtestdb.Config) error {
	conn, err := pgx.ParseConfig(template.URL())
	if err != nil {
		return err
	}
	_, err = migrate.Up(ctx, conn, migrate.Options{})
	return err
}
