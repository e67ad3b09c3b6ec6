package walrelay_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

func putFault(kind awslocal.FaultKind) awslocal.Fault {
	return awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: kind}
}

func TestKilledDuringTheLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 100, 1, 20)
	// One version of an aggregate per call, and this one never: the load cannot end.
	stuck := putFault(awslocal.EntryError)
	stuck.Match, stuck.Code = "a7", "ProvisionedThroughputExceededException"
	active := r.aws.Faults().Add(stuck)
	kill := r.spawn(t)
	r.eventually(t, "half of the rows", func() bool { return distinct(r.arrived(t)) > 1000 })
	require.NotZero(t, active.Struck())
	kill()
	_, exists := r.slotState(t)
	require.False(t, exists, "a slot now would hide the rows that were not loaded")
	active.Off()

	r.spawn(t)
	records := r.await(t, 2000)
	r.requireWhole(t, records)
	require.Greater(t, len(records), 2000, "the second load starts over")
}

func TestKilledBeforeTheCopyOfTheSlot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 10, 1, 1)
	active := r.aws.Faults().Add(putFault(awslocal.LostAnswer))
	kill := r.spawn(t)
	r.await(t, 10) // all are on the stream, and the relay does not know
	require.NotZero(t, active.Struck())
	kill()
	_, exists := r.slotState(t)
	require.False(t, exists)
	active.Off()

	r.append(t, "a", 10, 2, 2)
	r.spawn(t)
	r.requireWhole(t, r.await(t, 20))
}

func TestKilledBehindTheCopyOfTheSlot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 10, 1, 1)
	kill := r.spawn(t)
	r.eventually(t, "the slot", func() bool { _, exists := r.slotState(t); return exists })
	kill()
	r.append(t, "a", 10, 2, 2)
	r.spawn(t)
	records := r.await(t, 20)
	r.requireWhole(t, records)
	require.Len(t, records, 20, "what was loaded is not loaded again")
}

func TestKilledBetweenReadAndPut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	kill := r.spawn(t)
	r.streaming(t)
	active := r.aws.Faults().Add(putFault(awslocal.Reset))
	r.append(t, "a", 10, 1, 3)
	r.eventually(t, "a put that is not carried out", func() bool { return active.Struck() > 0 })
	kill()
	require.Empty(t, r.arrived(t))
	active.Off()

	r.spawn(t)
	records := r.await(t, 30)
	r.requireWhole(t, records)
	require.Len(t, records, 30)
}

func TestKilledBetweenPutAndConfirm(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	kill := r.spawn(t)
	r.streaming(t)
	active := r.aws.Faults().Add(putFault(awslocal.LostAnswer))
	r.append(t, "a", 10, 1, 1)
	r.await(t, 10)
	require.NotZero(t, active.Struck())
	kill()
	active.Off()

	r.append(t, "a", 10, 2, 2)
	r.spawn(t)
	records := r.await(t, 20)
	r.requireWhole(t, records)
	require.Greater(t, len(records), 20, "what was not confirmed comes again, with the same id")
}

func TestSlotDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "a", 10, 1, 2)
	r.await(t, 20)
	require.NoError(t, stop())
	r.eventually(t, "the server to let go of the slot", func() bool {
		_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.slot)
		return err == nil
	})
	r.append(t, "a", 10, 3, 3) // no slot keeps this

	r.start(t)
	records := r.await(t, 30)
	r.requireWhole(t, records)
	loaded := 0
	for _, record := range records {
		if record.Operation == outbox.OperationLoad {
			loaded++
		}
	}
	require.Equal(t, 30, loaded, "losing the slot costs duplicates, not events")
}

func TestAStandbyTakesOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	kill := r.spawn(t)
	first := r.streaming(t)
	r.start(t)
	r.eventually(t, "the second to stand by", func() bool {
		return strings.Contains(r.logged(), "standby: another relay holds the slot")
	})
	active := r.aws.Faults().Add(putFault(awslocal.LostAnswer))
	r.append(t, "a", 10, 1, 2)
	r.eventually(t, "a put on its way", func() bool { return active.Struck() > 0 })
	kill()
	active.Off()

	r.eventually(t, "the standby to stream", func() bool { return r.streaming(t) != first })
	r.append(t, "a", 10, 3, 4)
	r.requireWhole(t, r.await(t, 40))
}

// The server cuts a silent client off after wal_sender_timeout. The relay must not be one while Kinesis throttles it.
func TestBackpressureKeepsTheConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(t, "ALTER ROLE pgtest IN DATABASE "+r.database(t)+" SET wal_sender_timeout = '1s'")
	r.start(t)
	pid := r.streaming(t)
	throttle := putFault(awslocal.CallError)
	throttle.Code, throttle.Status = "ProvisionedThroughputExceededException", 400
	active := r.aws.Faults().Add(throttle)
	r.append(t, "a", 500, 1, 30) // 15,000 rows: more than the pipeline takes
	// Three times the timeout by the server's own clock, and nothing gets through meanwhile.
	r.exec(t, "SELECT pg_sleep(3)")
	require.NotZero(t, active.Struck())
	require.Empty(t, r.arrived(t))
	active.Off()
	records := r.await(t, 15_000)
	r.requireWhole(t, records)
	require.Len(t, records, 15_000)
	require.Equal(t, pid, r.streaming(t), "the connection broke")
}

func TestPartialFailuresOfHotKeysKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	flaky := putFault(awslocal.EntryError)
	flaky.Code, flaky.Rate, flaky.Seed = "InternalFailure", 0.3, 1
	active := r.aws.Faults().Add(flaky)
	for version := 1; version <= 40; version += 4 {
		r.append(t, "hot", 3, version, version+3)
	}
	records := r.await(t, 120)
	require.Greater(t, active.Struck(), 10)
	r.requireWhole(t, records)
	require.Len(t, records, 120, "a record that was refused is not on the stream")
}

func TestACutConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	first := r.streaming(t)
	r.append(t, "a", 10, 1, 1)
	r.exec(t, "SELECT pg_terminate_backend($1)", first)
	r.append(t, "a", 10, 2, 2)
	r.requireWhole(t, r.await(t, 20))
	require.NotEqual(t, first, r.streaming(t))
}
