//go:build !race

// Volume tests. With the race detector each takes minutes. `make test` runs them without it.

package walrelay_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/walrelay"
)

// The server cuts a silent client off after wal_sender_timeout. The relay must not be one while Kinesis throttles it. The test counts what
// the server hears instead of waiting for the timeout, which a busy machine could reach, too.
func TestVolumeBackpressureKeepsTheConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	pid := r.streaming(t)
	throttle := putFault(awslocal.CallError)
	throttle.Code, throttle.Status = "ProvisionedThroughputExceededException", 400
	active := r.aws.Faults().Add(throttle)
	r.fill(t, "a", 500, 100) // 50,000 rows, which is far more than the pipeline takes
	r.eventually(t, "a throttled call", func() bool { return active.Struck() > 0 })
	for sent, still := "", 0; still < 3; {
		replied := r.replied(t)
		r.eventually(t, "a status, although the relay reads nothing", func() bool { return r.replied(t) != replied })
		before := sent
		require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT sent_lsn::text FROM pg_stat_replication WHERE pid = $1", pid).Scan(&sent), "the connection broke")
		if still++; sent != before {
			still = 0
		}
	}
	require.Equal(t, pid, r.streaming(t), "the connection broke")
	require.Empty(t, r.arrived(t))
	active.Off()
	r.requireWhole(t, r.await(t, 50_000))
}

// The relay's memory does not know how large the table is. While Kinesis takes nothing, the load reads no further than the pipeline takes.
func TestVolumeALoadWaitsForKinesis(t *testing.T) {
	t.Parallel()
	const rows, size = 500, 60_000
	r := newRig(t)
	r.exec(t, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		SELECT gen_random_uuid(), 'Car', 'a' || n % 50, 1 + n / 50, 'CarUpdated', jsonb_build_object('fill', repeat('x', $2)) FROM generate_series(0, $1 - 1) AS n`, rows, size)
	throttle := putFault(awslocal.CallError)
	throttle.Code, throttle.Status = "ProvisionedThroughputExceededException", 400
	active := r.aws.Faults().Add(throttle)
	var relay *walrelay.Relay
	r.runWith(t, func(started *walrelay.Relay) { relay = started })
	const fits = 16 << 20 / size // into the pipeline
	r.eventually(t, "a full pipeline", func() bool { return relay.Pending() >= fits })
	struck := active.Struck()
	r.eventually(t, "calls that Kinesis throttles", func() bool {
		require.LessOrEqual(t, relay.Pending(), fits+64, "and a page")
		return active.Struck() > struck+10
	})
	active.Off()
	require.Len(t, r.await(t, rows), rows)
}

// The relay's memory does not know how large a transaction is.
func TestVolumeATransactionOf200000Rows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cmd, _ := r.command(t, program(t))
	r.streaming(t)
	r.fill(t, "a", 2000, 100)
	records := r.await(t, 200_000)
	r.requireWhole(t, records)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Skip("no /proc here: the relay's memory cannot be read")
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(t, found)
	peak, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	t.Logf("peak resident memory: %d MB", peak>>10)
	require.Less(t, peak, 200<<10, "peak resident memory in kB") // the rows alone are 90 MB as records
}
