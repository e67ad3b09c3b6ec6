package walrelay_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// A user with REPLICATION can copy the whole server, and read each of its databases. The lines of docs/operations.md leave it one
// database, in which a relay works as before.
func TestARelayBehindANarrowServer(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, nil)
	r.exec(t, "CREATE ROLE narrow LOGIN REPLICATION PASSWORD 'narrow' IN ROLE outbox_relay")
	r.exec(t, "CREATE DATABASE another")
	to := func(database, replication string) error {
		config, err := pgx.ParseConfig(r.as(t, func(u *url.URL, query url.Values) {
			u.User, u.Path = url.UserPassword("narrow", "narrow"), "/"+database
			if replication != "" {
				query.Set("replication", replication)
			}
		}))
		require.NoError(t, err)
		conn, err := pgconn.ConnectConfig(t.Context(), &config.Config)
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err
	}
	refused := func(err error) {
		t.Helper()
		var server *pgconn.PgError
		require.ErrorAs(t, err, &server)
		require.Equal(t, "28000", server.Code, server.Message)
		require.Contains(t, server.Message, "pg_hba.conf rejects")
	}
	refused(to("outboxdb", "true")) // the lab's servers never let it
	require.NoError(t, to("another", "database"))

	page, err := os.ReadFile(filepath.Join(labtest.Root(t), "docs", "operations.md"))
	require.NoError(t, err)
	lines := regexp.MustCompile(`(?m)^host .*\n`).FindAllString(string(page), -1)
	require.Len(t, lines, 3)
	var file string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SHOW hba_file").Scan(&file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for i := len(lines) - 1; i >= 0; i-- {
		text = append([]byte(lines[i]), text...)
	}
	require.NoError(t, os.WriteFile(file, text, 0o600))
	r.exec(t, "SELECT pg_reload_conf()")
	r.eventually(t, "the new lines", func() bool { return to("another", "") != nil })
	refused(to("outboxdb", "true"))
	refused(to("another", "database"))
	refused(to("another", ""))
	r.exec(t, "SELECT 1") // the owner is not a member

	r.db.URL = r.as(t, func(u *url.URL, _ url.Values) { u.User = url.UserPassword("narrow", "narrow") })
	r.append(t, "a", 1, 1, 1)
	r.start(t)
	r.await(t, 1)
	r.append(t, "a", 1, 2, 2)
	r.await(t, 2)
}
