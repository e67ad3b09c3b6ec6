package outboxctl

import (
	"fmt"
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
	"rds-outbox-demo/lab/labtest"
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
	return doctor{Setup: r.setup, now: time.Now, between: 50 * time.Millisecond, oldTransaction: time.Minute, patience: labtest.Patience}
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

func TestClockSaysHowFarItIsOff(t *testing.T) {
	t.Parallel()
	ours := time.Now()
	for off, want := range map[time.Duration]check{
		time.Second:       {"clock", stateOK, "within 2s of ours", ""},
		-10 * time.Second: {"clock", stateWarn, "-10s off ours", ""},
		3 * time.Minute:   {"clock", stateFail, "3m0s off ours", ""},
	} {
		got := clock("clock", ours.Add(off), ours, time.Second)
		want.Do = got.Do
		require.Equal(t, want, got)
	}
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
		"stream": "DescribeStreamSummary", "partition key": "ListShards", "mapping": "ListEventSourceMappings", "failure queue": "GetQueueAttributes", "bus": "DescribeEventBus",
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
