package walrelay_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

func putFault(kind awslocal.FaultKind) awslocal.Fault {
	return awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: kind}
}

func TestKilledDuringTheLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 100, 1, 20)
	// A call takes one version of an aggregate, and this version is never accepted. So the load cannot end.
	stuck := putFault(awslocal.EntryError)
	stuck.Match, stuck.Code = "a7", "ProvisionedThroughputExceededException"
	active := r.aws.Faults().Add(stuck)
	kill := r.spawn(t)
	r.heldUp(t, active, 1980)
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
	// The slot shows before its copy is complete. A kill then would end the server's session, and the slot with it.
	r.eventually(t, "the slot", func() bool { return strings.Contains(r.logged(), "load complete, slot made") })
	kill()
	r.append(t, "a", 10, 2, 2)
	r.spawn(t)
	r.requireWhole(t, r.await(t, 20))
	require.Equal(t, 1, strings.Count(r.logged(), "loading the retained rows"), "what was loaded is not loaded again")
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
	r.requireWhole(t, r.await(t, 30))
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
	require.Equal(t, 120, len(records), "a record that was refused is not on the stream")
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
	// The session that is to end may have sent all of it.
	r.eventually(t, "another session", func() bool { return r.streaming(t) != first })
}

// Kinesis accepts a call, and the answer never comes. The relay sends the same events again. Each second
// copy arrives after its first copy and before its successor.
func TestAcceptedAndNotAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	lost := putFault(awslocal.ResetAfter)
	lost.Count = 1 // A share of the calls would at times strike one sender so often that its backoff is longer than any patience.
	for version := 1; version <= 20; version += 2 {
		active := r.aws.Faults().Add(lost)
		r.append(t, "a", 10, version, version+1)
		r.eventually(t, "a lost answer", func() bool { return active.Struck() == 1 })
	}
	r.await(t, 200)
	r.eventually(t, "the records of each call for the second time", func() bool { return len(r.arrived(t)) >= 210 })
	r.requireWhole(t, r.read)
}

// The server looks the publication up as of the position that it decodes. A publication that was dropped
// and made again exists, but the slot can never pass the gap. The relay must say so and not try for ever.
func TestPublicationDroppedAndMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// PostgreSQL 18 gives no other sign than a warning.
	r.exec(t, "ALTER ROLE pgtest IN DATABASE "+r.database(t)+" SET client_min_messages = error")
	stop := r.start(t)
	r.streaming(t)
	r.append(t, "a", 5, 1, 1)
	r.await(t, 5)
	require.NoError(t, stop())
	r.exec(t, "DROP PUBLICATION outbox_publication")
	r.append(t, "a", 5, 2, 2)
	r.exec(t, "CREATE PUBLICATION outbox_publication FOR TABLE outbox WITH (publish = 'insert')")
	r.append(t, "a", 5, 3, 3)

	relay, err := walrelay.New(r.config(t))
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	remedy := "SELECT pg_drop_replication_slot('" + r.slot + "')"
	require.Contains(t, setup.Remedy, remedy)
	r.eventually(t, "the remedy", func() bool { _, err := r.db.Pool.Exec(t.Context(), remedy); return err == nil })
	r.start(t)
	r.requireWhole(t, r.await(t, 15))
}

// A transaction that stays open holds the slot's WAL back and nothing else. Later events go on, through
// restarts of the relay, and the transaction's own events come when it commits.
func TestALongTransactionStaysOpenAcrossRestarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	stop := r.start(t)
	r.streaming(t)
	long, err := r.db.Pool.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, outbox.Append(ctx, long, event("long", 1)))
	r.append(t, "a", 5, 1, 2)
	r.await(t, 10)
	require.NoError(t, stop())
	kill := r.spawn(t)
	r.streaming(t)
	r.append(t, "a", 5, 3, 3)
	r.await(t, 15)
	kill()
	r.start(t)
	require.NoError(t, outbox.Append(ctx, long, event("long", 2)))
	require.NoError(t, long.Commit(ctx))
	r.requireWhole(t, r.await(t, 17))
}

func TestMigrationsWhileEventsFlow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	for version, migration := range []string{
		"ALTER TABLE outbox ADD COLUMN tenant varchar(50) DEFAULT 'x'",
		"CREATE INDEX outbox_event_type_idx ON outbox (event_type)",
		"CREATE TABLE dealers (id uuid PRIMARY KEY)",
		"ALTER TABLE outbox DROP COLUMN tenant",
		"ALTER PUBLICATION outbox_publication ADD TABLE dealers",
		"INSERT INTO dealers VALUES (gen_random_uuid())",
		"VACUUM FULL outbox",
	} {
		r.append(t, "a", 5, 2*version+1, 2*version+1)
		r.exec(t, migration)
		r.append(t, "a", 5, 2*version+2, 2*version+2)
	}
	r.requireWhole(t, r.await(t, 70))
}

// The relay's user may not connect for a while. That passes.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	role := "user_" + r.slot
	r.exec(t, "CREATE ROLE "+role+" LOGIN REPLICATION IN ROLE outbox_relay CONNECTION LIMIT 0 PASSWORD 'x'")
	t.Cleanup(func() { r.exec(t, "DROP ROLE "+role) })
	r.append(t, "a", 5, 1, 1)
	r.db.URL = r.as(t, func(u *url.URL, _ url.Values) { u.User = url.UserPassword(role, "x") })
	r.start(t)
	r.eventually(t, "a refused connection", func() bool { return strings.Contains(r.logged(), "SQLSTATE 53300") })
	r.exec(t, "ALTER ROLE "+role+" CONNECTION LIMIT -1")
	r.streaming(t)
	r.requireWhole(t, r.await(t, 5))
}

// The connection breaks in the middle of the load. That passes, so the relay must not advise anybody to
// drop a slot.
func TestLoadCutOffIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 50, 1, 20)
	stuck := putFault(awslocal.EntryError)
	stuck.Match, stuck.Code = "a7", "InternalFailure"
	active := r.aws.Faults().Add(stuck)
	stop := r.start(t)
	r.eventually(t, "the load", func() bool { return r.distinct(t) > 500 })
	r.exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name LIKE $1 || '\\_load\\_%'", r.slot)
	active.Off()
	r.eventually(t, "the relay to notice", func() bool { return strings.Contains(r.logged(), "connecting again") })
	require.Regexp(t, `attempts=1 since=\S+ retry_in_ms=\d{3,}`, r.logged(), "a load is not repeated at once: it sends every row again")
	r.streaming(t)
	require.NoError(t, stop())
	r.requireWhole(t, r.await(t, 1000))
}

// Several relays start without a slot. One loads, the others stand by, and no row is sent twice.
func TestOnlyOneRelayLoads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 50, 1, 20)
	for range 3 {
		r.start(t)
	}
	r.streaming(t)
	records := r.await(t, 1000)
	r.requireWhole(t, records)
	r.append(t, "a", 50, 21, 21)
	require.Equal(t, 1050, len(r.await(t, 1050)))
}
