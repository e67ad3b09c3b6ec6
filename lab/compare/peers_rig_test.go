//go:build peers

package compare_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

const (
	// quiet is how long nothing must come before a relay counts as done. What is missing then is only called missing if the
	// relay's own position is past it.
	quiet = 20 * time.Second
	seed  = 1
)

// rig is one relay with its database and its Kinesis.
type rig struct {
	peer
	db        *pgtest.DB
	slot      string
	kinesis   string // URL
	login     string // URL of the database for the relay
	log       *labtest.Log
	program   *process.Process
	server    *awslocal.Server // nil for a sink
	arrivals  judge.Arrivals[awslocal.StreamRecord]
	committed string // LSN after the last commit
}

func newRig(t *testing.T, p peer, db *pgtest.DB, kinesis string) *rig {
	t.Helper()
	r := &rig{peer: p, db: db, kinesis: kinesis, login: db.URL, log: labtest.NewLog(t)}
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT 'peer_' || oid FROM pg_database WHERE datname = current_database()").Scan(&r.slot))
	r.slot += "_" + map[bool]string{true: "poll", false: filepath.Base(p.program)}[p.polls]
	t.Cleanup(func() { r.stop(t) })
	return r
}

// newStream is a rig with an empty stream that keeps what comes.
func newStream(t *testing.T, p peer) *rig {
	t.Helper()
	r := newRig(t, p, pgtest.New(t), "")
	server, config := awstest.Start(t, awslocal.Config{
		Streams:  []awslocal.Stream{{Name: stream, Shards: 2}},
		OnRecord: func(record awslocal.StreamRecord) { r.arrivals.Add(eventID(entry{Data: record.Data}), record) },
	})
	r.server, r.kinesis = server, *config.BaseEndpoint
	return r
}

func (r *rig) env(login, slot string) []string {
	return []string{
		"DATABASE_URL=" + login, "STREAM_NAME=" + stream, "SLOT_NAME=" + slot, "AWS_ENDPOINT_URL_KINESIS=" + r.kinesis,
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
	}
}

func (r *rig) path(t *testing.T) string { return filepath.Join(labtest.Root(t), "bin", r.peer.program) }

func (r *rig) start(t *testing.T, slot string) {
	t.Helper()
	program, err := process.Start(process.Config{Program: r.path(t), Env: r.env(r.login, slot), Output: r.log})
	require.NoError(t, err)
	r.program = program
}

func (r *rig) stop(t *testing.T) {
	if r.program != nil {
		r.program.Stop(t.Context(), 10*time.Second)
	}
}

// kill ends the relay between any two of its instructions.
func (r *rig) kill(t *testing.T) {
	t.Helper()
	r.program.Signal(os.Kill)
	<-r.program.Done()
	require.True(t, r.program.Killed(), "the relay ended by itself: %s", r.log)
}

func (r *rig) ended() bool {
	select {
	case <-r.program.Done():
		return true
	default:
		return false
	}
}

// await returns the time at which the condition held. The relay must not end before.
func (r *rig) await(t *testing.T, condition func() bool) time.Time {
	t.Helper()
	for begun := time.Now(); !condition(); {
		require.False(t, r.ended(), "%s ended: %s", r.name, r.log)
		require.Less(t, time.Since(begun), 15*time.Minute, "%s: %s", r.name, r.log)
		time.Sleep(time.Millisecond)
	}
	return time.Now()
}

func (r *rig) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := r.db.Pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}

func (r *rig) holds(t *testing.T, condition string, args ...any) (holds bool) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT "+condition, args...).Scan(&holds), condition)
	return holds
}

// commit commits these versions of every aggregate, also to the table of a relay that polls.
func (r *rig) commit(t *testing.T, from, to int) {
	t.Helper()
	commit(t, r.db, seed, from, to)
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&r.committed))
	if r.polls {
		r.publish(t, from)
	}
}

// publish copies the rows from a version on into the table of a relay that polls.
func (r *rig) publish(t *testing.T, from int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), r.path(t), "publish", strconv.Itoa(from))
	command.Env = r.env(r.db.URL, "")
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func (r *rig) makeSlot(t *testing.T) {
	t.Helper()
	if !r.polls {
		r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.slot)
	}
}

// isPast reports whether the relay's position is past all that was committed. What it has not sent then, it never sends.
func (r *rig) isPast(t *testing.T) bool {
	t.Helper()
	if r.polls {
		return r.holds(t, `(SELECT (last_processed_transaction_id, offset_acked) FROM watermill_offsets_outbox) >=
			(SELECT (transaction_id, "offset") FROM watermill_outbox ORDER BY 1 DESC LIMIT 1)`)
	}
	return r.holds(t, "confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", r.slot, r.committed)
}

// verdict waits until nothing more comes, and judges what came.
func (r *rig) verdict(t *testing.T) judge.Verdict {
	t.Helper()
	rows := map[uuid.UUID]judge.Row{}
	var list []judge.Row
	for _, row := range readRows(t, r.db) {
		rows[row.ID], list = row, append(list, row)
	}
	_ = r.arrivals.Wait(t.Context(), len(list), quiet) // the judge says what is missing
	r.stop(t)
	records, _ := r.arrivals.Take()
	sortByShard(records)
	var events []awslocal.BusEvent
	for _, record := range records {
		// The form of a record is each relay's own, so only its id is read.
		events = append(events, busEvent(t, record.SequenceNumber, rows[eventID(entry{Data: record.Data})]))
	}
	v := judge.Judge(judge.Round{Rows: list, Arrivals: events, NotCounted: true})
	require.Zero(t, v.Wrong, "%v", v.Violations)
	if r.name == peers[0].name {
		require.Zero(t, v.Lost+v.Reordered, "%v", v.Violations)
	}
	return v
}

func cell(v judge.Verdict) string {
	return fmt.Sprintf("%d / %d / %d", v.Lost, v.Duplicates, v.Reordered)
}

// as lets the relay log in as a new user of the relays' group, who may not pass by row-level security.
func (r *rig) as(t *testing.T, user string) {
	t.Helper()
	r.exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION PASSWORD 'peer' IN ROLE outbox_relay", user))
	t.Cleanup(func() {
		_, err := r.db.Pool.Exec(context.Background(), fmt.Sprintf("DROP OWNED BY %[1]s; DROP ROLE %[1]s", user))
		require.NoError(t, err)
	})
	login, err := url.Parse(r.db.URL)
	require.NoError(t, err)
	login.User = url.UserPassword(user, "peer")
	r.login = login.String()
}
