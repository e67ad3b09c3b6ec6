package walrelay

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/internal/rdsdb"
)

func TestTheSlotsLineSaysWhetherTheRelayIsReady(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var slot string
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT slot_name FROM pg_create_logical_replication_slot(
		(SELECT 'measured_' || oid FROM pg_database WHERE datname = current_database()), 'pgoutput')`).Scan(&slot))
	var log bytes.Buffer
	database, err := rdsdb.NewURLLogin(db.URL, "walrelay")
	require.NoError(t, err)
	relay, err := New(Config{
		Database: database, Stream: "s", Slot: slot, Kinesis: refusing{}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	p := newPipeline()
	relay.enter(phase{state: stateStreaming, slot: slot, pipeline: p})
	relay.measureOnce(t.Context())
	require.Contains(t, log.String(), "state=streaming streaming=1 ready=true")
	require.NotContains(t, log.String(), "refused")
	log.Reset()
	p.setRefusal("AccessDeniedException")
	relay.measureOnce(t.Context())
	require.Contains(t, log.String(), "level=WARN msg=slot hop=3")
	require.Contains(t, log.String(), "state=streaming streaming=0 ready=false refused=\"Kinesis answers AccessDeniedException\"")
	p.setRefusal("")
	log.Reset()
	p.add(&pending{key: "car"})
	relay.measureOnce(t.Context())
	require.Contains(t, log.String(), "state=streaming streaming=1 ready=true")
	log.Reset()
	p.accepted = p.accepted.Add(-stuckAfter)
	relay.measureOnce(t.Context())
	require.Regexp(t, `state=streaming streaming=0 ready=false refused="Kinesis has accepted nothing for 2m\d+s \(1 records wait\)"`, log.String())
}

// A relay that cannot reach the server says so, with the metric that an alarm goes by.
func TestTheSlotsLineSaysThatTheServerCannotBeReached(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	database, err := rdsdb.NewURLLogin("postgres://user:secret@127.0.0.1:1/x", "walrelay")
	require.NoError(t, err)
	relay, err := New(Config{Database: database, Stream: "s", Slot: "relay", Kinesis: refusing{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	relay.measureOnce(t.Context())
	require.Regexp(t, `level=WARN msg=slot hop=3 StreamName=\S+ SlotName=relay state=connecting streaming=0 error="measuring the slot: .*{Name:streaming Unit:Count}\]`, log.String())
	require.NotContains(t, log.String(), "secret")
}

// A session that ends at the same change again and again must not count as one that streams. The first session counts at once, because
// the alarm on relays that are silent is made right after it has begun.
func TestASessionAfterAFailureHasToShowThatItWorks(t *testing.T) {
	t.Parallel()
	database, err := rdsdb.NewURLLogin("postgres://127.0.0.1:1/x", "walrelay")
	require.NoError(t, err)
	relay, err := New(Config{Database: database, Stream: "s", Slot: "relay", Kinesis: refusing{}, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	begin := func() *pipeline {
		p := newPipeline()
		relay.enter(phase{state: stateStreaming, slot: "relay", pipeline: p})
		return p
	}
	works := func() bool { return relay.phase.Load().works() }
	fail := func() {
		relay.sessionFailed()
		relay.enter(phase{state: stateConnecting, slot: "relay"})
		require.False(t, works())
	}
	fail() // it never came to streaming
	p := begin()
	require.True(t, works(), "the first session")
	p.keepalive(100)
	fail()
	fail()
	p = begin()
	require.False(t, works())
	p.keepalive(100)
	require.False(t, works(), "the failed session came as far")
	p.setRefusal("AccessDeniedException")
	p.keepalive(101)
	require.False(t, works())
	p.setRefusal("")
	require.True(t, works(), "its position has moved")
	fail()
	begin()
	require.False(t, works())
	lasting := *relay.phase.Load()
	lasting.at = lasting.at.Add(-provenAfter)
	require.True(t, lasting.works(), "nothing is written, and it lasts")
}
