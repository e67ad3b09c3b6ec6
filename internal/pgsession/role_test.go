package pgsession_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
)

// hostile has a value for each setting that matters, which is never the value that we depend on.
var hostile = map[string]string{
	"search_path": `"$user"`, "row_security": "on", "transform_null_equals": "on", "array_nulls": "off", "default_table_access_method": "other_heap",
	"synchronous_commit": "off", "default_transaction_isolation": "serializable", "exit_on_error": "on", "client_min_messages": "error",
	"client_encoding": "LATIN1", "timezone": "Asia/Kathmandu", "datestyle": "German", "intervalstyle": "iso_8601", "bytea_output": "escape",
	"extra_float_digits": "-15", "standard_conforming_strings": "off",
	// A session must be able to begin with them, because the test looks at it.
	"statement_timeout": "20s", "lock_timeout": "1", "idle_in_transaction_session_timeout": "20s", "idle_session_timeout": "20s", "transaction_timeout": "20s",
}

// stops are the settings that keep a session from working, which is an error. A test of what works
// cannot have them.
var stops = []string{
	"default_transaction_read_only", "transaction_read_only", "transaction_isolation", "transaction_deferrable",
}

// role owns a database and every hostile setting.
type role struct {
	url    string // of the role
	name   string
	server *pgx.Conn // of a superuser, in the same database
}

func newRole(t *testing.T) *role {
	t.Helper()
	super := config(t, pgtest.NewEmpty(t))
	r := &role{server: connect(t, super)}
	require.NoError(t, r.server.QueryRow(t.Context(), "SELECT 'hostile_' || oid FROM pg_database WHERE datname = current_database()").Scan(&r.name))
	r.url = fmt.Sprintf("postgres://%s:hostile@%s:%d/%s?sslmode=disable", r.name, super.Host, super.Port, super.Database)
	database := pgx.Identifier{super.Database}.Sanitize()
	all := settings(t, r.server)
	r.exec(t, "CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler")
	r.exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE REPLICATION PASSWORD 'hostile'", r.name))
	t.Cleanup(func() { r.dropRole(t, database, super.User) })
	r.exec(t, fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", database, r.name))
	r.exec(t, fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %[1]s", r.name))
	for _, s := range all {
		value, ok := hostile[s.Name]
		if !ok && !fixed()[s.Name] {
			value, ok = s.other()
		}
		if ok {
			r.exec(t, fmt.Sprintf("ALTER ROLE %s SET %s = %s", r.name, s.Name, quoted(s.Name, value)))
			r.exec(t, fmt.Sprintf("ALTER DATABASE %s SET %s = %s", database, s.Name, quoted(s.Name, value)))
		}
	}
	return r
}

func quoted(name, value string) string {
	if name == "search_path" {
		return value
	}
	return "'" + value + "'"
}

// other returns another value than the server has, for settings that have only a few values.
func (s setting) other() (string, bool) {
	if slices.Contains(stops, s.Name) || strings.HasPrefix(s.Name, "log_") { // some of the log's exclude each other
		return "", false
	}
	switch s.Kind {
	case "bool":
		return map[string]string{"on": "off", "off": "on"}[s.Value], true
	case "enum":
		i := slices.IndexFunc(s.Values, func(v string) bool { return v != s.Value })
		return s.Values[max(i, 0)], i >= 0
	}
	return "", false
}

func (r *role) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := r.server.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}

func (r *role) dropRole(t *testing.T, database, owner string) {
	for _, sql := range []string{
		"ALTER DATABASE " + database + " RESET ALL", "REASSIGN OWNED BY " + r.name + " TO " + owner, "DROP OWNED BY " + r.name, "DROP ROLE " + r.name,
	} {
		if _, err := r.server.Exec(context.Background(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
