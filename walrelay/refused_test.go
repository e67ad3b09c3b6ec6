package walrelay_test

import (
	"bytes"
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/walrelay"
)

// as returns the rig's URL with another user, database or parameters.
func (r *rig) as(t *testing.T, change func(u *url.URL, query url.Values)) string {
	t.Helper()
	u, err := url.Parse(r.db.URL)
	require.NoError(t, err)
	query := u.Query()
	change(u, query)
	u.RawQuery = query.Encode()
	return u.String()
}

// Real servers refuse this, before and during a load. Each refusal ends Run at once, because each
// further load would send every row again.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	user := func(attributes string) func(*testing.T, *rig) {
		return func(t *testing.T, r *rig) {
			t.Helper()
			r.exec(t, fmt.Sprintf("CREATE ROLE user_%s %s PASSWORD 'wrong'", r.slot, attributes))
			t.Cleanup(func() { r.exec(t, "DROP ROLE user_"+r.slot) })
			r.db.URL = r.as(t, func(u *url.URL, _ url.Values) { u.User = url.UserPassword("user_"+r.slot, "wrong") })
		}
	}
	for name, tc := range map[string]struct {
		prepare         func(*testing.T, *rig)
		problem, remedy string
	}{
		"MayNotLogIn":   {user("NOLOGIN"), "SQLSTATE 28000", "pg_hba.conf"},
		"NoReplication": {user("LOGIN IN ROLE outbox_relay"), "SQLSTATE 42501", "REPLICATION"},
		"NoSelect":      {user("LOGIN REPLICATION"), "SQLSTATE 42501", "outbox_relay"},
		"RowLevelSecurity": {
			func(t *testing.T, r *rig) {
				r.exec(t, "ALTER TABLE outbox ENABLE ROW LEVEL SECURITY")
				user("LOGIN REPLICATION IN ROLE outbox_relay")(t, r)
				r.db.URL = r.as(t, func(_ *url.URL, query url.Values) { query.Set("row_security", "off") })
			},
			"SQLSTATE 42501", "BYPASSRLS",
		},
		"NoDatabase": {
			func(t *testing.T, r *rig) { r.db.URL = r.as(t, func(u *url.URL, _ url.Values) { u.Path = "/nowhere" }) },
			"SQLSTATE 3D000", "database",
		},
		"NoTLS": {
			func(t *testing.T, r *rig) {
				r.db.URL = r.as(t, func(_ *url.URL, query url.Values) { query.Set("sslmode", "require") })
			},
			"server refused TLS connection", "turn ssl on",
		},
		"ColumnRenamed": {
			func(t *testing.T, r *rig) { r.exec(t, "ALTER TABLE outbox RENAME event_data TO payload") },
			"SQLSTATE 42703", "columns and types",
		},
		"ColumnOfAnotherType": {
			func(t *testing.T, r *rig) {
				r.exec(t, "ALTER TABLE outbox DROP CONSTRAINT outbox_aggregate_version_check, ALTER aggregate_version TYPE text")
			},
			"SQLSTATE 42883", "columns and types",
		},
		"ColumnOfATypeThatCannotBeRead": {
			func(t *testing.T, r *rig) {
				r.exec(t, "ALTER TABLE outbox ALTER created_at DROP DEFAULT, DROP CONSTRAINT outbox_created_at_check, ALTER created_at TYPE text")
			},
			"created_at", "columns and types",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.append(t, "a", 5, 1, 1)
			tc.prepare(t, r)
			err := <-r.run(t)
			var setup *walrelay.SetupError
			require.ErrorAs(t, err, &setup)
			require.Contains(t, setup.Problem, tc.problem)
			require.Contains(t, setup.Remedy, tc.remedy)
			require.NotContains(t, err.Error(), "wrong", "the password must not be told")
			_, exists := r.slotState(t)
			require.False(t, exists)
			require.NotContains(t, r.logged(), "session ended")
		})
	}
}

// A change that the decoder does not understand ends Run. Mending the table mends later changes only, because the server decodes each
// with the table as it was. So the remedy that loses nothing is the load.
func TestChangeThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	for name, ddl := range map[string]struct{ do, undo string }{
		"ColumnRenamed":         {"ALTER TABLE outbox RENAME event_data TO payload", "ALTER TABLE outbox RENAME payload TO event_data"},
		"TimestampWithoutTZ":    {"ALTER TABLE outbox ALTER created_at TYPE timestamp", "ALTER TABLE outbox ALTER created_at TYPE timestamptz"},
		"PublicationColumnList": {"ALTER PUBLICATION outbox_publication SET TABLE outbox (id, aggregate_type, aggregate_id, aggregate_version)", "ALTER PUBLICATION outbox_publication SET TABLE outbox"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if name == "PublicationColumnList" {
				pgtest.RequireFilters(t, r.db.Pool)
			}
			r.exec(t, "ALTER TABLE outbox DROP CONSTRAINT outbox_created_at_check")
			done := r.run(t)
			r.streaming(t)
			r.append(t, "a", 5, 1, 1)
			r.await(t, 5)
			r.exec(t, ddl.do)
			r.exec(t, "INSERT INTO outbox SELECT gen_random_uuid(), 'Car', 'a1', 2, 'CarUpdated', '{}'")
			var setup *walrelay.SetupError
			require.ErrorAs(t, <-done, &setup)
			remedy := "SELECT pg_drop_replication_slot('" + r.slot + "')"
			require.Contains(t, setup.Remedy, remedy)
			require.NotContains(t, r.logged(), "session ended")

			r.exec(t, ddl.undo)
			r.exec(t, "INSERT INTO outbox SELECT gen_random_uuid(), 'Car', 'a1', 3, 'CarUpdated', '{}'")
			require.ErrorAs(t, <-r.run(t), &setup, "the table is mended, the WAL is not")
			require.Contains(t, setup.Remedy, remedy)
			r.eventually(t, "the remedy", func() bool { _, err := r.db.Pool.Exec(t.Context(), remedy); return err == nil })
			r.start(t)
			r.requireWhole(t, r.await(t, 7))
		})
	}
}

// No server of an unsupported version is at hand. This one says that it is one.
func TestServerTooOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	version := r.version(t)
	r.proxy(t, func(_ *labtest.Proxy, _ bool, piece []byte) []byte {
		return bytes.ReplaceAll(piece, []byte(version), []byte("130023"))
	})
	require.EqualError(t, <-r.run(t), "PostgreSQL 13 is not supported: walrelay needs 14 or later: upgrade the server")
}

// version returns the server's server_version_num, such as 170010.
func (r *rig) version(t *testing.T) (version string) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SHOW server_version_num").Scan(&version))
	return version
}
