package walrelay_test

import (
	"bytes"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/walrelay"
)

const slotValues = `slot_lag_bytes=\d+ retained_wal_bytes=\d+ `

// says waits for lines about the slot, again and again.
func (r *rig) says(t *testing.T, pattern string) {
	t.Helper()
	line := regexp.MustCompile(`msg=slot hop=3 StreamName=\S+ SlotName=` + r.slot + ` ` + pattern)
	before := len(line.FindAllString(r.logged(), -1))
	r.eventually(t, "lines "+pattern, func() bool { return len(line.FindAllString(r.logged(), -1)) > before+2 })
}

// startMeasuring runs a relay that measures all the time and logs by itself.
func (r *rig) startMeasuring(t *testing.T) *rig {
	t.Helper()
	own := *r
	own.log = labtest.NewLog(t)
	own.runWith(t, func(relay *walrelay.Relay) { relay.MeasureEvery(time.Millisecond) })
	return &own
}

// A relay that writes no lines counts as dead. So it writes about the slot in every state. An alarm can
// then tell "no relay streams" from "no relay lives", and a first load counts as alive.
func TestTheSlotIsMeasuredInEveryState(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 50, 1, 20)
	active := r.stick("a7")
	first := r.startMeasuring(t)
	first.says(t, slotValues+`state=loading streaming=1 ready=true _aws.*{Name:streaming Unit:Count} {Name:slot_lag_bytes`)
	second := r.startMeasuring(t)
	second.says(t, `state=standby streaming=0 _aws`) // the slot is not there yet
	// The lines come before the first row is sent, so they do not tell that the load is held up.
	r.eventually(t, "the load to be held up", func() bool { return active.Struck() > 0 })
	active.Off()

	streams, stands := first, second
	r.eventually(t, "a relay that streams", func() bool {
		if strings.Contains(second.logged(), "msg=streaming") { // it was there first when the slot was made
			streams, stands = second, first
		}
		return strings.Contains(streams.logged(), "msg=streaming")
	})
	streams.says(t, slotValues+`state=streaming streaming=1 ready=true _aws`)
	stands.says(t, slotValues+`state=standby streaming=0 _aws`)
	r.requireWhole(t, r.await(t, 1000))
}

// Also while it waits for the slot, and between two sessions.
func TestTheSlotIsMeasuredWhileTheRelayWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var down atomic.Bool // the server then refuses to stream
	r.proxy(t, func(_ *labtest.Proxy, fromServer bool, piece []byte) []byte {
		if fromServer || !down.Load() {
			return piece
		}
		return bytes.ReplaceAll(piece, []byte("START_REPLICATION"), []byte("START_REPLICATIOX"))
	})
	tx, err := r.db.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	relay := r.startMeasuring(t)
	relay.says(t, `.*state=loading streaming=1`)
	require.NoError(t, tx.Rollback(t.Context()))
	relay.says(t, slotValues+`state=streaming streaming=1`)

	down.Store(true)
	r.exec(t, "SELECT pg_terminate_backend($1)", r.streaming(t))
	relay.says(t, slotValues+`state=connecting streaming=0 _aws`)
}

// The server's plugin fails on the same change in every session. Each of them streams for a moment.
func TestARelayThatGetsNowhereDoesNotSayThatItStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pgtest.RequireFilters(t, r.db.Pool)
	r.exec(t, "CREATE TABLE other (x int PRIMARY KEY)")
	r.exec(t, "ALTER PUBLICATION outbox_publication ADD TABLE other WHERE (1 / x > 0)")
	r.run(t) // measures when a phase begins. One that measures all the time would be at it while the short sessions pass.
	r.eventually(t, "streams", func() bool { return strings.Contains(r.logged(), "state=streaming streaming=1") })
	r.exec(t, "INSERT INTO other VALUES (0)")
	r.eventually(t, "a failure", func() bool { return strings.Contains(r.logged(), "division by zero") })
	r.eventually(t, "a session that gets no further", func() bool {
		_, after, _ := strings.Cut(r.logged(), "session ended")
		return regexp.MustCompile(`state=streaming streaming=0 ready=true`).MatchString(after)
	})
}
