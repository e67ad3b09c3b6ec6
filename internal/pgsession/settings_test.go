package pgsession_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/pgtest"
)

// limits are fixed, too, but each program has its own.
var limits = []string{
	"application_name", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout",
}

// left are the settings that a role may carry and that nothing here depends on. A name with a star is a class. Settings that pg_settings
// does not show are left, too: role and session_authorization say who a session is, and a right that is missing is an error, because
// row_security is off.
var left = map[string]string{
	// They choose a plan. Every plan has the same rows, and every query whose order matters has an ORDER BY.
	"enable_*": "plan", "geqo*": "plan", "jit*": "plan", "cpu_*": "plan", "parallel_*": "plan", "max_parallel_*": "plan", "min_parallel_*": "plan",
	"seq_page_cost": "plan", "random_page_cost": "plan", "effective_cache_size": "plan", "effective_io_concurrency": "plan",
	"from_collapse_limit": "plan", "join_collapse_limit": "plan", "plan_cache_mode": "plan", "constraint_exclusion": "plan",
	"cursor_tuple_fraction": "plan", "recursive_worktable_factor": "plan", "default_statistics_target": "plan",
	"debug_parallel_query": "plan", "force_parallel_mode": "plan", "synchronize_seqscans": "plan",

	// Memory, disk and pace.
	"work_mem": "memory", "hash_mem_multiplier": "memory", "maintenance_work_mem": "memory", "temp_buffers": "memory", "max_stack_depth": "memory",
	"logical_decoding_work_mem": "memory", "maintenance_io_concurrency": "memory", "io_combine_limit": "memory", "backend_flush_after": "memory",
	"gin_pending_list_limit": "memory", "vacuum_*": "pace of VACUUM", "commit_delay": "pace", "commit_siblings": "pace", "deadlock_timeout": "pace",
	"temp_file_limit": "an error when it is reached", "temp_tablespaces": "where sorts spill", "default_tablespace": "where a table's files are",
	"default_toast_compression": "how a value is stored", "file_copy_method": "how CREATE DATABASE copies",
	"wal_compression": "form of the WAL", "wal_init_zero": "form of the WAL", "wal_recycle": "form of the WAL", "wal_skip_threshold": "form of the WAL",
	"wal_consistency_checking": "form of the WAL",

	// Only the server's own log and statistics see them.
	"log_*": "log", "debug_pretty_print": "log", "debug_print_*": "log", "trace_*": "log", "backtrace_functions": "log", "lc_messages": "language of messages: code looks at SQLSTATEs and names",
	"track_*": "statistics", "compute_query_id": "statistics", "stats_fetch_consistency": "statistics", "update_process_title": "process list",
	"md5_password_warnings": "log", "escape_string_warning": "log",

	// Nothing here uses what they change.
	"lc_monetary": "money", "lc_numeric": "to_char with D, G or L", "lc_time": "to_char with TM", "default_text_search_config": "text search",
	"timezone_abbreviations": "zones by abbreviation", "xmlbinary": "xml", "xmloption": "xml", "gin_fuzzy_search_limit": "GIN indexes",
	"backslash_quote": "literals with E", "quote_all_identifiers": "quotes where none are needed", "lo_compat_privileges": "large objects",
	"icu_validation_level": "CREATE COLLATION", "check_function_bodies": "CREATE FUNCTION", "password_encryption": "dbuser hashes passwords itself",
	"scram_iterations": "dbuser hashes passwords itself", "event_triggers": "event triggers", "default_transaction_deferrable": "serializable transactions",
	"transaction_isolation": "default_transaction_isolation sets it with every transaction", "transaction_deferrable": "serializable transactions",
	"createrole_self_grant": "the master user gets rights that it could give itself", "session_replication_role": "triggers, rules and foreign keys",
	"plpgsql.*": "the migrations' DO blocks are correct without extra checks",

	// They keep a session from working, which is an error, or an operator's guard. Nothing is lost by either.
	"default_transaction_read_only":    "a guard: who writes gets an error. RDS keeps the green side of a deployment read-only by it",
	"transaction_read_only":            "default_transaction_read_only sets it with every transaction",
	"restrict_nonsystem_relation_kind": "an error", "client_connection_check_interval": "when the server notices that its client is gone",
	"tcp_*":              "when the server notices that its client is gone",
	"wal_sender_timeout": "walrelay reads its value, as the same user in the same database",

	// For the server's owner, who can also replace the server.
	"session_preload_libraries": "code of the owner", "local_preload_libraries": "code that the owner has installed", "dynamic_library_path": "code of the owner",
	"extension_control_path": "code of the owner", "allow_system_table_mods": "for repairs", "allow_in_place_tablespaces": "for tests of PostgreSQL",
	"zero_damaged_pages": "for repairs", "ignore_checksum_failure": "for repairs",
	"debug_discard_caches": "for tests of PostgreSQL", "debug_logical_replication_streaming": "when the server spills: walrelay asks for no streaming",
}

// why returns the reason for leaving a setting, or "" if it is not left.
func why(name string) string {
	if reason := left[name]; reason != "" {
		return reason
	}
	for class, reason := range left {
		if prefix, ok := strings.CutSuffix(class, "*"); ok && strings.HasPrefix(name, prefix) {
			return reason
		}
	}
	return ""
}

func fixed() map[string]bool {
	names := map[string]bool{}
	for _, setting := range pgsession.Fixed {
		names[setting.Name] = true
	}
	for _, name := range limits {
		names[name] = true
	}
	return names
}

// setting is one that a role may carry, by ALTER ROLE or ALTER DATABASE.
type setting struct {
	Name, Value, Kind string
	Values            []string // of an enum
}

func settings(t *testing.T, conn *pgx.Conn) []setting {
	t.Helper()
	_, err := conn.Exec(t.Context(), "DO $$ BEGIN END $$") // loads plpgsql, and with it its settings
	require.NoError(t, err)
	rows, err := conn.Query(t.Context(), `SELECT lower(name), setting, vartype, coalesce(enumvals, '{}') FROM pg_settings
		WHERE context IN ('user', 'superuser') ORDER BY name`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[setting])
	require.NoError(t, err)
	require.Greater(t, len(all), 150)
	return all
}

// A new PostgreSQL has new settings. Each is either fixed, or left for a reason that somebody has thought of.
func TestEverySettingOfARoleIsDecided(t *testing.T) {
	t.Parallel()
	conn := connect(t, config(t, pgtest.NewEmpty(t)))
	names := fixed()
	for _, s := range settings(t, conn) {
		reason := why(s.Name)
		if names[s.Name] {
			require.Empty(t, reason, "%s is fixed and left", s.Name)
			continue
		}
		if reason == "" && !strings.Contains(s.Name, ".") { // an extension's: no statement here uses one
			t.Errorf("%s is new: may a role with it change what a statement means? Add it to pgsession.Fixed, or to left with the reason", s.Name)
		}
	}
}

// The session has our values, whatever the role, the database and the connection string say.
func TestFixWins(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	url := r.url + "&options=-c%20search_path%3Dpg_catalog%20-c%20statement_timeout%3D7s&TimeZone=Asia/Tokyo&Row_Security=on&work_mem=5MB"
	hostile := config(t, url)
	before := connect(t, hostile)
	for _, s := range pgsession.Fixed {
		require.NotEqual(t, s.Value, show(t, before, s.Name), "%s is not hostile: the test shows nothing", s.Name)
	}
	c := config(t, url)
	pgsession.Fix(c, "the program", pgsession.Limits{})
	pgsession.Fix(c, "the program", pgsession.Limits{Statement: 90 * time.Second, Lock: 2 * time.Second, IdleInTransaction: 3 * time.Second})
	conn := connect(t, c)
	for _, s := range pgsession.Fixed {
		require.Equal(t, s.Value, show(t, conn, s.Name), s.Name)
		require.NotEmpty(t, s.Why)
	}
	for name, want := range map[string]string{
		"application_name": "the program", "statement_timeout": "90s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "3s",
		"idle_session_timeout": "0", "work_mem": "5MB",
	} {
		require.Equal(t, want, strings.Replace(show(t, conn, name), "1min30s", "90s", 1), name)
	}
	if hasTransactionTimeout(t, conn) {
		require.NotEqual(t, "0", show(t, before, "transaction_timeout"))
		require.Equal(t, "0", show(t, conn, "transaction_timeout"))
	}
}

// The replication connection speaks another protocol, and has the same settings.
func TestFixOnAReplicationConnection(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	c := config(t, r.url)
	pgsession.Fix(c, "the relay", pgsession.Limits{})
	c.RuntimeParams["replication"] = "database"
	conn := connect(t, c)
	for _, s := range pgsession.Fixed {
		require.Equal(t, s.Value, show(t, conn, s.Name), s.Name)
	}
	if hasTransactionTimeout(t, r.server) {
		require.Equal(t, "0", show(t, conn, "transaction_timeout"))
	}
}

func config(t *testing.T, url string) *pgx.ConnConfig {
	t.Helper()
	c, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	return c
}

func connect(t *testing.T, c *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// show works on a replication connection, too.
func show(t *testing.T, conn *pgx.Conn, name string) string {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), "SHOW "+name).ReadAll()
	require.NoError(t, err)
	return string(results[0].Rows[0][0])
}

func hasTransactionTimeout(t *testing.T, conn *pgx.Conn) (has bool) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_setting('transaction_timeout', true) IS NOT NULL").Scan(&has))
	return has
}
