package outboxctl

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

const dayOld = 24 * time.Hour

// oldRows are three of 15 days and one of 13, all on the stream of a relay that runs.
func oldRows(t *testing.T, r *rig) (stop func()) {
	t.Helper()
	stop = r.startRelay(t)
	var old []outbox.Event
	for n := range 3 {
		old = append(old, event(fmt.Sprint("old-", n), 1))
	}
	young := event("young", 1)
	r.commit(t, append(old, young)...)
	r.awaitOnStream(t, append(old, young)...)
	r.backdate(t, 15*dayOld, old...)
	r.backdate(t, 13*dayOld, young)
	return stop
}

func (r *rig) rows(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&n))
	return n
}

func TestPurgeDeletesWhatIsOldAndConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	oldRows(t, r)
	dry := r.run(t, "purge", "--dry-run")
	require.Zero(t, dry.code, dry.err)
	require.Regexp(t, `^dry run: 3 rows older than 14 days would go, once slot `+r.slot+` has confirmed them; the oldest row is of \S+Z\n$`, dry.out)
	require.Equal(t, 4, r.rows(t))

	report := decode[purgeReport](t, r.run(t, "purge", "--json", "--batch", "2"))
	require.EqualValues(t, 3, report.Deleted)
	require.Equal(t, 14, report.Days)
	require.WithinDuration(t, time.Now().Add(-13*dayOld), *report.Oldest, 30*time.Minute)
	require.Equal(t, 1, r.rows(t))

	days := r.run(t, "purge", "--days", "12")
	require.Zero(t, days.code, days.err)
	require.Equal(t, "purge: deleted 1 row older than 12 days; the table is empty\n", days.out)
	require.Contains(t, r.run(t, "purge", "--json").out, `"empty": true`)
}

// A purge that fails after its first batch has not looked at what stays.
func TestAPurgeThatFailsDoesNotCallTheTableEmpty(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"purge", "--batch", "1"}, {"purge", "--batch", "1", "--json"}} {
		r := newRig(t)
		oldRows(t, r)
		_, err := r.db.Pool.Exec(t.Context(), `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT count(*) FROM outbox) <= 3 THEN RAISE 'no more today'; END IF; RETURN OLD; END $$;
			CREATE TRIGGER refuse BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()`)
		require.NoError(t, err)
		failed := r.run(t, args...)
		require.Equal(t, 1, failed.code, failed.out)
		require.Contains(t, failed.err, "no more today")
		require.Equal(t, 3, r.rows(t), "one was deleted")
		require.NotContains(t, failed.out, "the table is empty")
		require.NotContains(t, failed.out, "oldest")
		require.NotContains(t, failed.out, `"empty": true`)
	}
}

func TestPurgeKeepsWhatTheSlotHasNotConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := oldRows(t, r)
	stop()
	r.commit(t, event("later", 1)) // or the slot may be at the end of the WAL
	behind := r.run(t, "purge", "--wait", "300ms")
	require.Equal(t, 1, behind.code)
	require.Regexp(t, `^outboxctl: replication slot `+r.slot+` \(wal_status reserved, active (true|false)\) has confirmed \S+, and rows wait for `, behind.err)
	r.eventually(t, "the slot to be free and dropped", func() bool {
		_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.slot)
		return err == nil
	})
	for _, args := range [][]string{{"purge"}, {"purge", "--dry-run"}} {
		missing := r.run(t, args...)
		require.Equal(t, 1, missing.code)
		require.Contains(t, missing.err, "replication slot "+r.slot+" does not exist")
		require.Empty(t, missing.out)
	}
	require.Equal(t, 5, r.rows(t))
}

// What DMS has confirmed need not be on the stream.
func TestPurgeRefusesASlotOfDMS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := event("a", 1)
	r.commit(t, old)
	r.backdate(t, 20*24*time.Hour, old)
	_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.slot)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := r.db.Pool.Exec(context.WithoutCancel(t.Context()), "SELECT pg_drop_replication_slot($1)", r.slot)
		require.NoError(t, err)
	})
	for _, args := range [][]string{{"purge"}, {"purge", "--dry-run"}} {
		refused := r.run(t, args...)
		require.Equal(t, 1, refused.code)
		require.Contains(t, refused.err, "is a DMS task's")
	}
	require.Equal(t, 1, r.rows(t))
}

// The limit is the stream's own, asked from Kinesis.
func TestPurgeRefusesLessThanTheStreamKeeps(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *awslocal.Config) { c.Retention = 240 * time.Hour })
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"DaysAtTheLimit": {[]string{"--days", "11"}, "RETENTION_DAYS (Days) is 11: set it above 11, the stream's retention and a day"},
		"DaysZero":       {[]string{"--days", "0"}, "RETENTION_DAYS (Days) is 0"},
		"DaysNoNumber":   {[]string{"--days", "2w"}, `"2w" is not a number of days`},
		"BatchZero":      {[]string{"--batch", "0"}, "--batch must be above 0"},
		"WaitZero":       {[]string{"--wait", "0s"}, "--wait must be above 0"},
		"Argument":       {[]string{"all"}, "takes only flags"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := r.run(t, append([]string{"purge"}, test.args...)...)
			require.Equal(t, 2, refused.code, refused.err)
			require.Contains(t, refused.err, test.want)
		})
	}
	t.Run("AGuessOfTheDays", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		oldRows(t, r)
		r.setup.RetentionDays = 0
		refused := r.run(t, "purge")
		require.Equal(t, 2, refused.code, refused.out)
		require.Contains(t, refused.err, "Give --days, or set RETENTION_DAYS")
		require.Equal(t, 4, r.rows(t))
		days := r.run(t, "purge", "--days", "14")
		require.Zero(t, days.code, days.err)
		require.Equal(t, 1, r.rows(t))
	})
	t.Run("TheSetupIsTheDefault", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		oldRows(t, r)
		r.setup.RetentionDays = 16
		none := r.run(t, "purge")
		require.Zero(t, none.code, none.err)
		require.Contains(t, none.out, "deleted 0 rows older than 16 days; ")
	})
}
