package outboxctl

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgserver"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/pgtest"
)

// What a role may carry must not change what the operator is told: an empty table of the same name in another schema would be audited
// as if nothing were missing.
func TestASessionUnderAHostileRole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.commit(t, event("a", 1), event("a", 2), event("b", 1))
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	r.exec(t, "CREATE SCHEMA elsewhere")
	r.exec(t, "CREATE TABLE elsewhere.outbox (LIKE outbox)")
	for _, setting := range []string{
		"search_path = elsewhere", "statement_timeout = 1", "lock_timeout = 1", "idle_in_transaction_session_timeout = 1", "timezone = 'Asia/Kathmandu'",
		"datestyle = 'German'", "client_encoding = 'LATIN1'", "standard_conforming_strings = off", "bytea_output = 'escape'",
	} {
		r.exec(t, fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s", config.User, config.Database, setting))
	}

	conn, err := r.setup.connect(t.Context())
	require.NoError(t, err)
	for _, setting := range pgsession.Fixed {
		var value string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_setting($1)", setting.Name).Scan(&value))
		require.Equal(t, setting.Value, value, setting.Name)
	}
	require.NoError(t, conn.Close(t.Context()))

	require.EqualValues(t, 3, decode[replayReport](t, r.run(t, "replay", "--all", "--dry-run", "--json")).Selected)
}

func TestDoctorRefusesADatabaseThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.setup.DatabaseURL = pgtest.NewWithEncoding(t, "SQL_ASCII")
	checks := named(r.doctor().database(t.Context()), "encoding")
	require.Equal(t, []check{{"encoding", stateFail, "the database's encoding is SQL_ASCII: events are UTF-8, so it must be UTF8", pgserver.EncodingRemedy}}, checks)
}

func TestDoctorRefusesAServerThatIsTooOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pgtest.PretendVersion(t, r.db.URL, "130023")
	checks := named(r.doctor().database(t.Context()), "database")
	require.Len(t, checks, 1)
	require.Equal(t, stateFail, checks[0].State)
	require.Contains(t, checks[0].Finding, "PostgreSQL 13 is not supported: walrelay needs 14 or later")
	require.Equal(t, pgserver.VersionRemedy, checks[0].Do)
}
