// Package pgsession fixes the settings that our SQL depends on, for every program that connects to PostgreSQL.
//
// In: a connection's configuration. Out: the same, with the settings of Fixed and the program's
// time limits among the parameters of its startup. These win over ALTER ROLE, ALTER DATABASE, ALTER
// SYSTEM and the options of a connection string. Without them a role's setting could change what a
// statement means. It could change which table a name is, which rows the table shows, and whether a
// commit is kept.
package pgsession

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Setting is a setting of PostgreSQL, the value that we depend on, and why.
type Setting struct{ Name, Value, Why string }

// Fixed are the settings that every session has. Any user may set them, so a server refuses none
// (RDS has no superusers), and PostgreSQL 14 has them all. A server refuses a connection with a
// setting that it does not know. A test compares this list with every setting that a role may
// carry.
var Fixed = []Setting{
	// Which table and which rows a statement uses.
	{"search_path", "public, pg_temp", "a table name is the table of schema public. Unnamed, pg_temp would be searched before public"},
	{"row_security", "off", "with a policy on a table, a statement fails instead of seeing only some of the rows"},
	{"transform_null_equals", "off", "= NULL is never true"},
	{"array_nulls", "on", "NULL in an array is a null, not text"},
	{"default_table_access_method", "heap", "logical decoding reads heap tables"},

	// Whether a commit or an error counts.
	{"synchronous_commit", "on", "an answered commit survives a crash of the server"},
	{"default_transaction_isolation", "read committed", "a statement that waited for a lock sees what its holder has committed"},
	{"exit_on_error", "off", "an error that the program handles does not end the session"},
	{"client_min_messages", "warning", "a warning is the only sign of a missing publication from PostgreSQL 18 on"},

	// How values are spelt.
	{"client_encoding", "UTF8", "a Go string is UTF-8"},
	{"timezone", "UTC", "a timestamp's text is the same everywhere, and goose keeps its own without a zone"},
	{"datestyle", "ISO, MDY", "a date's text is the one that is parsed"},
	{"intervalstyle", "postgres", "an interval's text is the one that is parsed"},
	{"bytea_output", "hex", "a bytea's text is the one that is parsed"},
	{"extra_float_digits", "1", "a float's text is exact"},
	{"standard_conforming_strings", "on", "a backslash in a literal is a backslash"},
}

// Limits are times after which the server ends a statement or a session. Zero is no limit. The
// role's own limits never count.
type Limits struct {
	Statement         time.Duration
	Lock              time.Duration // the wait for one lock
	IdleInTransaction time.Duration // between two statements of a transaction
}

// Fix gives the sessions of config the settings of Fixed, these limits, and a name in the server's views and log. Other parameters
// stay as they are. It can be called again with other limits.
func Fix(config *pgx.ConnConfig, application string, limits Limits) {
	params := map[string]string{
		"application_name":                    application,
		"statement_timeout":                   milliseconds(limits.Statement),
		"lock_timeout":                        milliseconds(limits.Lock),
		"idle_in_transaction_session_timeout": milliseconds(limits.IdleInTransaction),
	}
	for _, setting := range Fixed {
		params[setting.Name] = setting.Value
	}
	// A connection string may spell a name in other letters, such as TimeZone. The server would
	// take the last of both spellings, and the order of a Go map is random.
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		_, ours := params[strings.ToLower(name)]
		return ours
	})
	maps.Copy(config.RuntimeParams, params)
	config.AfterConnect = liftTimeouts
}

// liftTimeouts lifts what an older server refuses as a parameter of the startup. PostgreSQL has idle_session_timeout from 14 on, and
// transaction_timeout from 17 on. A server that is too old has to get as far as being refused by name.
func liftTimeouts(ctx context.Context, conn *pgconn.PgConn) error {
	const lift = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings " +
		"WHERE name IN ('idle_session_timeout', 'transaction_timeout')"
	if err := conn.Exec(ctx, lift).Close(); err != nil {
		return fmt.Errorf("lifting idle_session_timeout and transaction_timeout: %w", err)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
