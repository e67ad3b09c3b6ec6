package outboxctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/postgres/postgrestest"
)

// One primary gets a standby. What a promotion would harm is mended step by step, as the remedies say.
func TestDoctorOfAPromotion(t *testing.T) {
	t.Parallel()
	primary, config := postgrestest.Start(t, nil)
	r := newRig(t, wholeMapping)
	r.db = postgrestest.Migrate(t, primary)
	r.setup.DatabaseURL, r.slot, r.setup.Slot = primary.URL(), "relay", "relay"
	var version int
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&version))
	if version < 15 {
		t.Skip("PostgreSQL 15 brought the functions that the lab copies a primary with")
	}
	says := func(want state, finding string) {
		t.Helper()
		var found check
		r.eventually(t, finding, func() bool {
			if version >= 17 {
				r.exec(t, "SELECT pg_log_standby_snapshot()") // lets the slot move
			}
			found = named(r.doctor().database(t.Context()), "promotion")[0]
			return found.State == want && strings.Contains(found.Finding, finding)
		})
	}
	says(stateOK, "nothing")

	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // as root the server runs as another user
	standby, err := postgres.StartStandby(t.Context(), postgres.Config{Dir: dir, Binaries: config.Binaries}, primary, "standby")
	require.NoError(t, err)
	t.Cleanup(func() { _ = standby.Kill() })
	if version < 17 {
		says(stateWarn, "has no failover slots")
		return
	}
	r.exec(t, "SELECT pg_create_logical_replication_slot('relay', 'pgoutput')")
	says(stateWarn, "it is not a failover slot")
	says(stateWarn, "after a promotion the bus may have events whose transaction is gone")
	r.startRelay(t) // makes it one
	r.exec(t, "ALTER SYSTEM SET synchronized_standby_slots = 'standby, other'")
	r.exec(t, "SELECT pg_reload_conf()")
	says(stateFail, "the relay waits for a standby: synchronized_standby_slots names other")
	r.exec(t, "ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
	r.exec(t, "SELECT pg_reload_conf()")
	says(stateOK, "nothing")

	// The standby knows more.
	r.setup.DatabaseURL = standby.URL()
	r.eventually(t, "the standby to have the slot", func() bool {
		r.exec(t, "SELECT pg_log_standby_snapshot()")
		checks := r.doctor().database(t.Context())
		require.Equal(t, stateSkip, named(checks, "slot")[0].State)
		return named(checks, "promotion")[0].State == stateOK
	})
	r.setup.Slot = "another"
	says(stateWarn, "the standby does not have slot another")
	r.setup.DatabaseURL, r.setup.Slot = primary.URL(), "relay"
	require.NoError(t, standby.Stop(t.Context()))
	says(stateFail, "nobody streams through slot standby")
}
