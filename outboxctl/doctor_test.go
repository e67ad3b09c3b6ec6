package outboxctl

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/postgres/postgrestest"
	"rds-outbox-demo/migrate"
)

// newServerRig is a rig on a PostgreSQL server of its own, for what concerns the whole server.
func newServerRig(t *testing.T, settings map[string]string) *rig {
	t.Helper()
	binaries, err := postgrestest.FindBinaries("..")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	server, err := postgres.Start(t.Context(), postgres.Config{Dir: t.TempDir(), Binaries: binaries, Settings: settings})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Kill() })
	database, err := pgx.ParseConfig(server.URL())
	require.NoError(t, err)
	_, err = migrate.Up(t.Context(), database, migrate.Options{})
	require.NoError(t, err)
	r := newRig(t, wholeMapping)
	r.db = &pgtest.DB{URL: server.URL()}
	r.db.Pool, err = pgxpool.New(t.Context(), server.URL())
	require.NoError(t, err)
	t.Cleanup(r.db.Pool.Close)
	r.setup.DatabaseURL, r.setup.Consumer, r.slot, r.setup.Slot = server.URL(), "consumer", "relay", "relay"
	return r
}

// wholeMapping is that of serverless.yml.
func wholeMapping(c *awslocal.Config) {
	c.Mappings = []awslocal.Mapping{{
		Function: "consumer", Stream: testStream, BatchSize: 100, ParallelizationFactor: 2, MaximumRetryAttempts: -1, MaximumRecordAge: 601_200,
		BisectOnError: true, ReportBatchItemFailures: true, OnFailureQueue: testDiscards,
	}}
}

func (r *rig) doctor() doctor {
	return doctor{Setup: r.setup, now: time.Now, between: 50 * time.Millisecond, oldTransaction: time.Minute}
}

func (r *rig) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := r.db.Pool.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// named returns the checks with a name.
func named(checks []check, name string) (found []check) {
	for _, c := range checks {
		if c.Name == name {
			found = append(found, c)
		}
	}
	return found
}

// requireOnly checks that one check, and no other, is in the state and says what it should.
func requireOnly(t *testing.T, checks []check, want state, name, finding string) {
	t.Helper()
	all := named(checks, name)
	require.Len(t, all, 1, "%v", checks)
	require.Equal(t, want, all[0].State, "%v", all[0])
	require.Contains(t, all[0].Finding, finding)
	if want == stateFail || want == stateWarn {
		require.NotEmpty(t, all[0].Do)
	}
	for _, c := range checks {
		require.False(t, c.Name != name && c.State == stateFail, "%v", c)
	}
}

// One server, whole at first; then one thing after the other breaks.
func TestDoctorOfTheDatabase(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, map[string]string{"max_prepared_transactions": "2", "max_wal_size": "64MB", "min_wal_size": "32MB"})
	stop := r.startRelay(t)
	retained := func(t *testing.T) check { return named(r.doctor().database(t.Context()), "retained WAL")[0] }
	limit := func(t *testing.T, megabytes int64) {
		t.Helper()
		r.exec(t, fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB'", megabytes))
		r.exec(t, "SELECT pg_reload_conf()")
		r.eventually(t, "the new limit", func() bool { return strings.Contains(retained(t).Finding, "of "+size(megabytes<<20)) })
	}

	t.Run("WarnsWhereTheWALHasNoLimit", func(t *testing.T) {
		require.Equal(t, stateWarn, retained(t).State)
		require.Contains(t, retained(t).Finding, "without a limit")
		limit(t, 1024)
	})

	t.Run("FindsNothingWhereNothingIsWrong", func(t *testing.T) {
		var result result
		r.eventually(t, "a slot that has confirmed", func() bool {
			result = r.run(t, "doctor")
			return result.code == 0
		})
		require.NotContains(t, result.out, "FAIL")
		require.NotContains(t, result.out, "warn")
		require.NotContains(t, result.out, "skip")
		require.Equal(t, "17 checks: 0 failed, 0 to think about", result.lastLine())
		report := decode[doctorReport](t, r.run(t, "doctor", "--json"))
		require.Len(t, report.Checks, 17)
		require.Equal(t, 2, r.run(t, "doctor", "now").code)
	})

	t.Run("SeesAnOldTransaction", func(t *testing.T) {
		tx, err := r.db.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		d := r.doctor()
		d.oldTransaction = 0
		requireOnly(t, d.database(t.Context()), stateOK, "transactions", "none") // it has written nothing
		_, err = tx.Exec(t.Context(), "SELECT pg_current_xact_id()")
		require.NoError(t, err)
		requireOnly(t, d.database(t.Context()), stateFail, "transactions", "is open for ")
		d.oldTransaction = time.Hour
		requireOnly(t, d.database(t.Context()), stateOK, "transactions", "is open for ")
	})

	t.Run("SeesAPreparedTransaction", func(t *testing.T) {
		r.exec(t, "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
		d := r.doctor()
		d.oldTransaction = 0
		checks := d.database(t.Context())
		requireOnly(t, checks, stateFail, "transactions", "is open for")
		require.Contains(t, named(checks, "transactions")[0].Do, "forgotten")
		r.exec(t, "ROLLBACK PREPARED 'forgotten'")
	})

	t.Run("SaysThatItDoesNotSeeThem", func(t *testing.T) {
		r.exec(t, "CREATE ROLE looker LOGIN PASSWORD 'x' IN ROLE outbox_relay")
		d := r.doctor()
		looker := *r.setup
		looker.DatabaseURL = strings.Replace(r.db.URL, r.db.URL[strings.Index(r.db.URL, "//")+2:strings.Index(r.db.URL, "@")], "looker:x", 1)
		d.Setup = &looker
		requireOnly(t, d.database(t.Context()), stateWarn, "transactions", "looker does not see")
	})

	t.Run("SeesAClockThatIsWrong", func(t *testing.T) {
		d := r.doctor()
		d.now = func() time.Time { return time.Now().Add(-3 * time.Minute) }
		requireOnly(t, d.database(t.Context()), stateFail, "database clock", "3m0s off")
		d.now = func() time.Time { return time.Now().Add(10 * time.Second) }
		requireOnly(t, d.database(t.Context()), stateWarn, "database clock", "-10s off")
	})

	t.Run("SeesAChangeThatIsOpen", func(t *testing.T) {
		tx, err := r.db.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, err = tx.Exec(t.Context(), "ALTER PUBLICATION outbox_publication SET (publish = 'update')")
		require.NoError(t, err)
		requireOnly(t, r.doctor().database(t.Context()), stateWarn, "publication", "an open transaction changes table outbox or its publication")
	})

	t.Run("SeesAPublicationThatLeavesOutRows", func(t *testing.T) {
		published := func() check { return named(r.doctor().database(t.Context()), "publication")[0] }
		r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'update')") // which ends the relay at its next look
		require.Equal(t, stateFail, published().State)
		require.Contains(t, published().Finding, "does not publish every insert into public.outbox (it leaves inserts out)")
		require.Contains(t, published().Do, "SET (publish = 'insert')")
		r.exec(t, "ALTER PUBLICATION outbox_publication SET (publish = 'insert')")
		require.Equal(t, stateOK, published().State)
		require.Contains(t, published().Finding, "publishes every insert")
	})

	stop()
	t.Run("SeesASlotThatNobodyReads", func(t *testing.T) {
		r.eventually(t, "the slot to be free", func() bool {
			return strings.Contains(named(r.doctor().database(t.Context()), "slot")[0].Finding, "nobody")
		})
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", "relay is read by nobody")
		require.Regexp(t, `nobody( since 2\d{3}-.*)?: events wait`, named(r.doctor().database(t.Context()), "slot")[0].Finding) // since 17
		require.Equal(t, 1, r.run(t, "doctor").code)
	})

	t.Run("SeesThatNothingIsConfirmed", func(t *testing.T) {
		r.exec(t, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 70)")
		r.eventually(t, "all of it in the WAL", func() bool { // what no commit waits for is written a moment later
			checks := r.doctor().database(t.Context())
			backlog, wal := named(checks, "backlog")[0], named(checks, "retained WAL")[0]
			return backlog.State == stateFail && strings.Contains(backlog.Finding, "not getting less") &&
				wal.State == stateOK && strings.Contains(wal.Finding, "of 1.0 GiB")
		})
	})

	t.Run("SeesHowLongTheLimitLasts", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				_, _ = r.db.Pool.Exec(ctx, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 100000))")
			}
		}()
		d := r.doctor()
		d.between = 200 * time.Millisecond
		r.eventually(t, "WAL that grows", func() bool {
			wal := named(d.database(t.Context()), "retained WAL")[0]
			return wal.State == stateFail && strings.Contains(wal.Finding, "a second more: ") && strings.HasSuffix(wal.Finding, "s left")
		})
	})

	t.Run("SeesThatTheLimitIsNear", func(t *testing.T) {
		var bytes int64
		require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots").Scan(&bytes))
		limit(t, bytes>>20*100/93)
		require.Equal(t, stateFail, retained(t).State)
	})

	t.Run("SeesASlotThatIsLost", func(t *testing.T) {
		r.eventually(t, "the slot to be lost", func() bool {
			r.exec(t, "SELECT pg_switch_wal(), pg_logical_emit_message(false, 'fill', repeat('x', 1000000))")
			r.exec(t, "CHECKPOINT")
			return strings.Contains(named(r.doctor().database(t.Context()), "slot")[0].Finding, "lost:")
		})
		checks := r.doctor().database(t.Context())
		requireOnly(t, checks, stateFail, "slot", "relay is lost")
		require.Contains(t, named(checks, "slot")[0].Do, "SELECT pg_drop_replication_slot('relay')")
		require.Equal(t, stateSkip, named(checks, "retained WAL")[0].State)
	})

	t.Run("SeesASlotThatIsMissing", func(t *testing.T) {
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", "relay does not exist")
	})

	t.Run("AsksOfTheTableUnderDMS", func(t *testing.T) {
		r.exec(t, "SELECT pg_create_logical_replication_slot('relay', 'test_decoding')")
		r.exec(t, "ALTER PUBLICATION outbox_publication DROP TABLE outbox")
		under := func() check { return named(r.doctor().database(t.Context()), "publication")[0] }
		require.Equal(t, stateOK, under().State, "%v", under())
		require.Contains(t, under().Finding, "DMS does not use it")
		r.exec(t, "ALTER TABLE outbox REPLICA IDENTITY NOTHING")
		require.Equal(t, stateFail, under().State)
		require.Contains(t, under().Finding, "the replica identity of public.outbox has no aggregate_id")
		r.exec(t, "ALTER TABLE outbox REPLICA IDENTITY DEFAULT")
		r.exec(t, "ALTER PUBLICATION outbox_publication ADD TABLE outbox")
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
	})

	t.Run("SeesASlotOfAnotherPlugin", func(t *testing.T) {
		r.exec(t, "SELECT pg_create_physical_replication_slot('relay')")
		requireOnly(t, r.doctor().database(t.Context()), stateFail, "slot", `is for plugin ""`)
		r.exec(t, "SELECT pg_drop_replication_slot('relay')")
	})

}

func TestDoctorOfASlotTimeout(t *testing.T) {
	t.Parallel()
	require.Equal(t, stateOK, judgeSlotTimeout("0").State)
	found := judgeSlotTimeout("3600")
	require.Equal(t, stateWarn, found.State)
	require.Contains(t, found.Finding, "is 3600 s: a relay that is away for longer loses its slot")
}

func TestDoctorOfAServerWithoutLogicalWAL(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, map[string]string{"wal_level": "replica"})
	checks := r.doctor().database(t.Context())
	require.Equal(t, stateFail, named(checks, "wal_level")[0].State)
	require.Contains(t, named(checks, "wal_level")[0].Do, "rds.logical_replication")
}

func TestDoctorWithoutADatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t, wholeMapping)
	r.setup.DatabaseURL, r.setup.Consumer = "postgres://who:secret@127.0.0.1:1/none?sslmode=disable", "consumer"
	report := r.doctor().examine(t.Context())
	requireOnly(t, report.Checks, stateFail, "database", "connecting to the database")
	require.NotContains(t, fmt.Sprint(report), "secret")
	require.Equal(t, stateSkip, named(report.Checks, "slot")[0].State)
	require.Equal(t, stateOK, named(report.Checks, "mapping")[0].State, "the other checks are made")
	require.Equal(t, 1, report.Failed)
}

// A check that cannot be made is red, and the others are made.
func TestDoctorThatMayNotLook(t *testing.T) {
	t.Parallel()
	for name, operation := range map[string]string{
		"stream": "DescribeStreamSummary", "mapping": "ListEventSourceMappings", "failure queue": "GetQueueAttributes", "bus": "DescribeEventBus",
	} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wholeMapping)
			r.setup.Consumer = "consumer"
			r.setup.DiscardQueue = ""
			r.aws.Faults().Add(awslocal.Fault{Operation: operation, Kind: awslocal.CallError, Code: "AccessDeniedException", Message: "not you"})
			requireOnly(t, r.doctor().services(t.Context()), stateFail, name, "AccessDeniedException: not you")
		})
	}
}

func TestDoctorOfTheServices(t *testing.T) {
	t.Parallel()
	mapping := func(edit func(*awslocal.Mapping)) func(*awslocal.Config) {
		return func(c *awslocal.Config) { edit(&c.Mappings[0]) }
	}
	nothing := func(*awslocal.Config) {}
	for name, tc := range map[string]struct {
		edit     func(*awslocal.Config)
		setup    func(*doctor)
		state    state
		check    string
		contains string
	}{
		"NothingIsWrong":           {nothing, nil, stateOK, "mapping", "Enabled, batches of 100, gives up after 167h0m0s"},
		"TheStreamIsMissing":       {nothing, func(d *doctor) { d.Stream = "typo" }, stateFail, "stream", "ResourceNotFoundException"},
		"TheRowsGoTooSoon":         {nothing, func(d *doctor) { d.RetentionDays = 8 }, stateFail, "stream", "rows stay only 8 days"},
		"TheRowsStayLongEnough":    {nothing, func(d *doctor) { d.RetentionDays = 9 }, stateOK, "stream", "keeps 168 h"},
		"TheStreamForgetsSoon":     {func(c *awslocal.Config) { c.Retention, c.Mappings = 24*time.Hour, nil }, func(d *doctor) { d.Consumer = "" }, stateWarn, "stream", "keeps 24 h"},
		"TheMappingIsMissing":      {func(c *awslocal.Config) { c.Mappings = nil }, nil, stateFail, "mapping", "consumer has 0 mappings"},
		"TheMappingIsOfAnother":    {mapping(func(m *awslocal.Mapping) { m.Stream = "other" }), nil, stateFail, "mapping", "has 0 mappings to outbox"},
		"TheMappingIsOff":          {mapping(func(m *awslocal.Mapping) { m.State = "Disabled" }), nil, stateFail, "mapping", "is Disabled"},
		"TheMappingIsChanging":     {mapping(func(m *awslocal.Mapping) { m.State = "Updating" }), nil, stateWarn, "mapping", "is Updating"},
		"TheAnswerIsNotRead":       {mapping(func(m *awslocal.Mapping) { m.ReportBatchItemFailures = false }), nil, stateFail, "mapping", "they are lost"},
		"RetriesEnd":               {mapping(func(m *awslocal.Mapping) { m.MaximumRetryAttempts = 5 }), nil, stateFail, "mapping", "after 5 retries"},
		"LambdaOutlivesTheStream":  {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = 604_800 }), nil, stateFail, "mapping", "forgets a record"},
		"LambdaNeverGivesUp":       {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = -1 }), nil, stateFail, "mapping", "forgets a record"},
		"LambdaGivesUpSoon":        {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = 3600 }), nil, stateWarn, "mapping", "gives a record up after 1h0m0s"},
		"NobodyIsTold":             {mapping(func(m *awslocal.Mapping) { m.OnFailureQueue = "" }), nil, stateFail, "mapping", "tells nobody"},
		"AFilter":                  {mapping(func(m *awslocal.Mapping) { m.Filters = []string{"{}"} }), nil, stateFail, "mapping", "has a filter"},
		"NoBisecting":              {mapping(func(m *awslocal.Mapping) { m.BisectOnError = false }), nil, stateWarn, "mapping", "does not halve"},
		"NoFunctionIsNamed":        {nothing, func(d *doctor) { d.Consumer = "" }, stateSkip, "mapping", "CONSUMER_FUNCTION is not set"},
		"TheFailureQueueIsMissing": {nothing, func(d *doctor) { d.FailureQueue += "x" }, stateFail, "failure queue", "does not exist"},
		"TheDiscardQueueIsMissing": {nothing, func(d *doctor) { d.DiscardQueue += "x" }, stateFail, "discard queue", "does not exist"},
		"NoDiscardQueueIsNamed":    {nothing, func(d *doctor) { d.DiscardQueue = "" }, stateSkip, "discard queue", "DISCARD_QUEUE_URL is not set"},
		"TheBusIsMissing":          {nothing, func(d *doctor) { d.Bus = "typo" }, stateFail, "bus", "Event bus typo does not exist"},
		"OurClockIsWrong":          {nothing, func(d *doctor) { d.now = func() time.Time { return time.Now().Add(-time.Hour) } }, stateFail, "AWS clock", "off ours"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wholeMapping, tc.edit)
			r.setup.Consumer = "consumer"
			d := r.doctor()
			if tc.setup != nil {
				tc.setup(&d)
			}
			checks := d.services(t.Context())
			if name == "TheStreamIsMissing" { // without it there is no mapping to look for
				require.Equal(t, stateSkip, named(checks, "mapping")[0].State)
			}
			requireOnly(t, checks, tc.state, tc.check, tc.contains)
		})
	}

	t.Run("SomethingWaitsInAQueue", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, wholeMapping)
		r.send(t, r.setup.FailureQueue, "{}")
		requireOnly(t, r.doctor().services(t.Context()), stateFail, "failure queue", "messages: 1: events that were parked are not on the bus")
	})

	t.Run("AWSsClockIsOurs", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, wholeMapping)
		wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Date", time.Now().Add(10*time.Second).UTC().Format(http.TimeFormat))
			r.aws.ServeHTTP(w, q)
		}))
		defer wrong.Close()
		r.setup.AWS = awslocal.SDKConfig(wrong.URL)
		requireOnly(t, r.doctor().services(t.Context()), stateWarn, "AWS clock", "off ours")
	})
}

func TestDoctorPrintsWhatToDo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.setup.Stream = "typo"
	result := r.run(t, "doctor")
	require.Equal(t, 1, result.code)
	lines := strings.Split(result.out, "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "FAIL  stream  ") })
	require.GreaterOrEqual(t, at, 0, result.out)
	require.Contains(t, lines[at+1], "-> check STREAM_NAME")
}
