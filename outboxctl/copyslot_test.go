package outboxctl

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
)

// makeSlot makes a slot as a DMS task does. The test's end drops it.
func (r *rig) makeSlot(t *testing.T, name, plugin string) {
	t.Helper()
	_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, $2)", name, plugin)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := r.db.Pool.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", name)
		require.NoError(t, err)
	})
}

func (r *rig) events(prefix string, n int) (events []outbox.Event) {
	for i := range n {
		events = append(events, event(fmt.Sprint(prefix, i), 1))
	}
	return events
}

// onStream returns the operations of every record on the stream, by event.
func (r *rig) onStream(t *testing.T) map[uuid.UUID][]string {
	t.Helper()
	reader := newStreamReader(r.setup)
	reader.pause = 0
	found := map[uuid.UUID][]string{}
	shards, err := reader.shards(t.Context())
	require.NoError(t, err)
	for _, shard := range shards {
		require.NoError(t, reader.read(t.Context(), *shard.ShardId, position{at: time.Unix(0, 0)}, func(raw types.Record) error {
			record, _, err := outbox.ParseRecord(raw.Data)
			found[record.Row.ID] = append(found[record.Row.ID], record.Operation)
			return err
		}))
	}
	return found
}

// DMS has read a part of its slot. A copy streams the rest of it and what follows, each event once, and loads nothing.
func TestACopiedSlotStreamsWhatTheOtherRelayHasNotConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dms := r.slot + "_dms"
	r.makeSlot(t, dms, "test_decoding")
	r.commit(t, r.events("sent", 3)...)
	var read int
	require.NoError(t, r.db.Pool.QueryRow(t.Context(),
		"SELECT count(*) FROM pg_logical_slot_get_changes($1, NULL, NULL) WHERE data LIKE 'table public.outbox: INSERT%'", dms).Scan(&read))
	require.Equal(t, 3, read)
	waiting := r.events("waiting", 2)
	r.commit(t, waiting...)

	dry := r.run(t, "copy-slot", "--from", dms, "--dry-run")
	require.Zero(t, dry.code, dry.err)
	require.Regexp(t, `^dry run: slot `+dms+` would be copied to `+r.slot+`, confirmed to [0-9A-F]+/[0-9A-F]+\n$`, dry.out)
	require.Equal(t, dry.out, r.run(t, "copy-slot", "--from", "dms", "--dry-run").out, "found by its plugin")
	report := decode[copySlotReport](t, r.run(t, "copy-slot", "--from", dms, "--json"))
	var confirmed string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", dms).Scan(&confirmed))
	require.Equal(t, copySlotReport{From: dms, Slot: r.slot, ConfirmedLSN: confirmed}, report)

	before := r.events("before", 2)
	r.commit(t, before...)
	r.startRelay(t)
	after := r.events("after", 2)
	r.commit(t, after...)
	r.awaitOnStream(t, after...)
	want := map[uuid.UUID][]string{}
	for _, e := range append(append(waiting, before...), after...) {
		want[e.ID] = []string{outbox.OperationInsert}
	}
	require.Equal(t, want, r.onStream(t))
}

// DMS does not need the publication, so nobody notices an insert that it leaves out. A copy from before such an insert would skip it.
func TestASlotIsNotCopiedFromBeforeAChangeOfThePublication(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dms := r.slot + "_dms"
	r.makeSlot(t, dms, "test_decoding")
	execute := func(t *testing.T, statement string, args ...any) {
		t.Helper()
		_, err := r.db.Pool.Exec(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	refused := func(t *testing.T, why string) {
		t.Helper()
		for _, args := range [][]string{{"--dry-run"}, nil} {
			got := r.run(t, append([]string{"copy-slot", "--from", dms}, args...)...)
			require.Equal(t, 1, got.code)
			require.Contains(t, got.err, why)
		}
		require.Contains(t, r.run(t, "copy-slot", "--from", r.slot).err, "slot "+r.slot+" does not exist")
	}
	r.commit(t, r.events("published", 1)...)
	execute(t, "ALTER PUBLICATION outbox_publication DROP TABLE outbox")
	r.commit(t, r.events("left out", 1)...)
	refused(t, "the table is not part of it")
	execute(t, "ALTER PUBLICATION outbox_publication ADD TABLE outbox")
	refused(t, "outbox_publication may have changed after the position of slot "+dms)

	// The other relay goes on. The slot's catalog_xmin moves on when the server has written its transactions and the slot has passed that place.
	labtest.Eventually(t, "a slot behind the change", func() bool {
		execute(t, "CHECKPOINT")
		execute(t, "SELECT count(*) FROM pg_logical_slot_get_changes($1, NULL, NULL)", dms)
		return r.run(t, "copy-slot", "--from", dms, "--dry-run").code == 0
	})
	after := r.events("after", 2)
	r.commit(t, after...)
	made := r.run(t, "copy-slot", "--from", dms)
	require.Zero(t, made.code, made.err)
	r.startRelay(t)
	r.awaitOnStream(t, after...)
	require.Len(t, r.onStream(t), len(after))
}

func TestASlotIsNotCopied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	refused := func(t *testing.T, from, why string) {
		t.Helper()
		got := r.run(t, "copy-slot", "--from", from)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.err, why)
		require.Empty(t, got.out)
	}
	for _, args := range [][]string{{"copy-slot"}, {"copy-slot", "x"}, {"copy-slot", "--from", "x", "y"}} {
		require.Equal(t, 2, r.run(t, args...).code)
	}
	refused(t, r.slot+"_dms", "does not exist")
	refused(t, "dms", "no slot of this database has the plugin of DMS")
	ended, err := r.setup.connect(t.Context())
	require.NoError(t, err)
	defer func() { _ = ended.Close(context.Background()) }() // the server has not noticed that the command has ended
	_, err = copySlot(t.Context(), ended, "x", r.slot, true)
	require.ErrorContains(t, err, "slot x does not exist")
	refused(t, "x", "slot x does not exist")

	_, err = r.db.Pool.Exec(t.Context(), "SELECT pg_create_physical_replication_slot($1)", r.slot+"_physical")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, _ = r.db.Pool.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", r.slot+"_physical")
	})
	refused(t, r.slot+"_physical", "is not a logical slot of database")

	// The rig's own relay stands for one that was not stopped.
	stop := r.startRelay(t)
	active := r.slot
	r.setup.Slot = r.slot + "_copy"
	refused(t, active, "slot "+active+" is active: stop its relay first")
	stop()

	r.setup.Slot = active
	r.makeSlot(t, r.slot+"_dms", "test_decoding")
	refused(t, r.slot+"_dms", "slot "+r.slot+" exists")
	t.Run("TwoTasks", func(t *testing.T) {
		r.makeSlot(t, r.slot+"_other", "test_decoding")
		r.setup.Slot = r.slot + "_copy"
		refused(t, "dms", "several slots have the plugin of DMS, test_decoding: name one of "+r.slot+"_dms, "+r.slot+"_other")
	})

	r.setup.Slot = r.slot + "_copy"
	loader, err := r.db.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer loader.Release()
	_, err = loader.Exec(t.Context(), "SELECT pg_advisory_lock(hashtextextended('walrelay load ' || $1, 0))", r.setup.Slot)
	require.NoError(t, err)
	refused(t, r.slot+"_dms", "a relay is loading")
	_, err = loader.Exec(t.Context(), "SELECT pg_advisory_unlock_all()")
	require.NoError(t, err)

	// The user has the rights of DMS's user, and is not a superuser.
	user := r.slot + "_user"
	_, err = r.db.Pool.Exec(t.Context(), "CREATE ROLE "+user+" LOGIN REPLICATION PASSWORD 'x' IN ROLE outbox_relay")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := r.db.Pool.Exec(context.Background(), "DROP ROLE "+user)
		require.NoError(t, err)
	})
	config := r.db.Pool.Config().ConnConfig
	r.setup.DatabaseURL = fmt.Sprintf("postgres://%s:x@%s:%d/%s?sslmode=disable", user, config.Host, config.Port, config.Database)
	dry := r.run(t, "copy-slot", "--from", r.slot+"_dms", "--dry-run")
	require.Zero(t, dry.code, dry.err)
	made := r.run(t, "copy-slot", "--from", r.slot+"_dms")
	require.Zero(t, made.code, made.err)
	_, err = r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.setup.Slot)
	require.NoError(t, err)
}
