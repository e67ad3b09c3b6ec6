package rdsdb

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
)

// loginRole is a user of the test server with a password that can change.
type loginRole struct {
	db   *pgtest.DB
	name string
}

func newLoginRole(t *testing.T, db *pgtest.DB, password string) loginRole {
	t.Helper()
	role := loginRole{db, "rdsdb_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	_, err := db.Pool.Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role.name, password))
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := db.Pool.Exec(context.Background(), "DROP ROLE "+role.name)
		require.NoError(t, err)
	})
	return role
}

// rotate changes the password and drops the pool's sessions, so that the next request must log in.
func (r loginRole) rotate(t *testing.T, pool *Pool, password string) {
	t.Helper()
	_, err := r.db.Pool.Exec(t.Context(), fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", r.name, password))
	require.NoError(t, err)
	pool.pool.Reset()
}

// requirePasswords skips the test on a server whose pg_hba.conf trusts everybody, because nothing
// can be refused there. The server of
// `make test` checks passwords.
func requirePasswords(t *testing.T, config Config) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=wrong sslmode=disable",
		config.Host, config.Port, config.Name, config.User))
	if err == nil {
		_ = conn.Close(t.Context())
		const absent = "this PostgreSQL server does not check passwords (method trust in its pg_hba.conf): `make test` starts one that does"
		labtest.Missing(t, absent)
	}
}

func TestPasswordIsReadAgainAfterRotation(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, _ := configOf(t, db)
	requirePasswords(t, config)
	role := newLoginRole(t, db, "first")
	config.User = role.name
	store := newSecretStore(t, secretValue(role.name, "first"))
	pool := open(t, config, store, nil)
	const who = "SELECT current_user"

	user, err := query(t, pool, who)
	require.NoError(t, err)
	require.Equal(t, role.name, user)
	role.rotate(t, pool, "first") // only the sessions are gone
	_, err = query(t, pool, who)
	require.NoError(t, err)
	require.EqualValues(t, 1, store.reads.Load(), "the password is remembered")

	role.rotate(t, pool, "second")
	store.set(secretValue(role.name, "second"))
	_, err = query(t, pool, who)
	require.NoError(t, err, "the very request that meets the new password succeeds")
	require.EqualValues(t, 2, store.reads.Load())

	// So is a secret that is late. The request fails, and the next one reads again.
	role.rotate(t, pool, "third-password")
	_, err = query(t, pool, who)
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, "28P01", pgErr.Code)
	require.NotContains(t, err.Error(), "second")
	store.set(secretValue(role.name, "third-password"))
	_, err = query(t, pool, who)
	require.NoError(t, err)
}

func TestNothingIsAskedBeforeTheFirstAcquire(t *testing.T) {
	t.Parallel()
	store := newSecretStore(t, "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	pool := open(t, Config{
		Host: "127.0.0.1", Port: uint16(listener.Addr().(*net.TCPAddr).Port), Name: "x", User: "x", SecretARN: testARN, ApplicationName: "x",
	}, store, nil)
	require.Zero(t, pool.pool.Stat().NewConnsCount())
	require.Zero(t, store.reads.Load())
}

func TestSession(t *testing.T) {
	t.Parallel()
	config, value := configOf(t, pgtest.New(t))
	pool := open(t, config, newSecretStore(t, value), nil)
	for setting, want := range map[string]string{
		"application_name":                    "rdsdb-test",
		"statement_timeout":                   "10s",
		"idle_in_transaction_session_timeout": "10s",
	} {
		got, err := query(t, pool, "SHOW "+setting)
		require.NoError(t, err)
		require.Equal(t, want, got, setting)
	}
	require.EqualValues(t, 2, pool.pool.Config().MaxConns)
}

func TestUnusableSecret(t *testing.T) {
	t.Parallel()
	config, value := configOf(t, pgtest.New(t))
	for name, test := range map[string]struct{ value, arn, message string }{
		"NotJSON":      {"hunter2", testARN, "must be a JSON object with username and password"},
		"Empty":        {"", testARN, "must be a JSON object with username and password"},
		"NoPassword":   {`{"username":"pgtest"}`, testARN, "must be a JSON object with username and password"},
		"WrongTypes":   {`{"username":"pgtest","password":["hunter2"]}`, testARN, "must be a JSON object with username and password"},
		"OtherUser":    {secretValue("admin", "hunter2"), testARN, `it is of user "admin", and DB_USER is "pgtest": set DB_USER to the secret's user`},
		"NoSuchSecret": {value, testARN + "-gone", "ResourceNotFoundException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := config
			config.SecretARN = test.arn
			_, err := query(t, open(t, config, newSecretStore(t, test.value), nil), "SELECT 'x'")
			require.ErrorContains(t, err, test.message)
			require.ErrorContains(t, err, "reading the database password from secret "+test.arn)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	trusted, other := newAuthority(t), newAuthority(t)
	later, earlier := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	config, value := configOf(t, pgtest.New(t))
	behind := net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	for name, test := range map[string]struct {
		by      authority
		host    string // in the certificate; empty: the server has no TLS
		until   time.Time
		message string // empty: accepted
	}{
		"Trusted":   {trusted, "localhost", later, ""},
		"Untrusted": {other, "localhost", later, "certificate signed by unknown authority"},
		"OtherHost": {trusted, "db.example.com", later, "certificate is valid for db.example.com, not localhost"},
		"Expired":   {trusted, "localhost", earlier, "certificate has expired"},
		"NoTLS":     {trusted, "", later, "server refused TLS connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := config
			config.SSL, config.Host = true, "localhost"
			if test.host == "" {
				config.Port = tlsFront(t, behind, nil)
			} else {
				config.Port = tlsFront(t, behind, test.by.server(t, test.host, test.until))
			}
			answer, err := query(t, open(t, config, newSecretStore(t, value), trusted.pool()), "SELECT 'yes'")
			if test.message != "" {
				require.ErrorContains(t, err, test.message)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "yes", answer)
		})
	}
}

func TestConnConfig(t *testing.T) {
	t.Parallel()
	config, value := configOf(t, pgtest.New(t))
	store := newSecretStore(t, value)

	conn, err := ConnConfig(t.Context(), config, store.client, pgsession.Limits{})
	require.NoError(t, err)
	session, err := pgx.ConnectConfig(t.Context(), conn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	for setting, want := range map[string]string{"application_name": "rdsdb-test", "statement_timeout": "0"} {
		var got string
		require.NoError(t, session.QueryRow(t.Context(), "SHOW "+setting).Scan(&got))
		require.Equal(t, want, got, setting)
	}

	config.SSL = true
	verified, err := ConnConfig(t.Context(), config, store.client, pgsession.Limits{})
	require.NoError(t, err)
	require.Equal(t, config.Host, verified.TLSConfig.ServerName)
	require.True(t, verified.TLSConfig.RootCAs.Equal(amazonRoots(config.Host)))

	store.set("hunter2")
	_, err = ConnConfig(t.Context(), config, store.client, pgsession.Limits{})
	require.ErrorContains(t, err, "reading the database password from secret "+testARN)
	require.NotContains(t, err.Error(), "hunter2")

	config.Host = ""
	_, err = ConnConfig(t.Context(), config, store.client, pgsession.Limits{})
	require.ErrorContains(t, err, "DB_HOST (Host) is empty")
}
