package walrelay_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// unpublishing are the ways to keep inserts into outbox out of the publication, with what undoes each. The look at the start refuses every
// one of them.
var unpublishing = map[string]struct{ do, insertInto, undo string }{
	"SwappedByRename": {
		"BEGIN; ALTER TABLE outbox RENAME TO outbox_old; CREATE TABLE outbox (LIKE outbox_old INCLUDING ALL); COMMIT", "outbox",
		"BEGIN; INSERT INTO outbox_old SELECT * FROM outbox; DROP TABLE outbox; ALTER TABLE outbox_old RENAME TO outbox; COMMIT",
	},
	"TakenOutOfThePublication": {
		"ALTER PUBLICATION outbox_publication DROP TABLE outbox", "outbox", "ALTER PUBLICATION outbox_publication ADD TABLE outbox",
	},
	"PublishedWithoutInserts": {
		"ALTER PUBLICATION outbox_publication SET (publish = 'update')", "outbox", "ALTER PUBLICATION outbox_publication SET (publish = 'insert')",
	},
	"Filtered": {
		"ALTER PUBLICATION outbox_publication SET TABLE outbox WHERE (aggregate_version > 1000)", "outbox",
		"ALTER PUBLICATION outbox_publication SET TABLE outbox",
	},
	"ColumnList": {
		"ALTER PUBLICATION outbox_publication SET TABLE outbox (id, aggregate_type, aggregate_id, aggregate_version)", "outbox",
		"ALTER PUBLICATION outbox_publication SET TABLE outbox",
	},
	"InAnotherSchema": {
		"CREATE SCHEMA app; ALTER TABLE outbox SET SCHEMA app", "app.outbox", "ALTER TABLE app.outbox SET SCHEMA public",
	},
	"Inherited": {
		"CREATE TABLE outbox_child () INHERITS (outbox)", "outbox_child",
		"BEGIN; ALTER TABLE outbox_child NO INHERIT outbox; INSERT INTO outbox SELECT * FROM outbox_child; COMMIT",
	},
	"Renamed": {"ALTER TABLE outbox RENAME TO events", "events", "ALTER TABLE events RENAME TO outbox"},
	"SchemaRenamed": {
		"ALTER SCHEMA public RENAME TO app", "app.outbox", "ALTER SCHEMA app RENAME TO public",
	},
	"PublicationDropped": {
		"DROP PUBLICATION outbox_publication", "outbox", "CREATE PUBLICATION outbox_publication FOR TABLE outbox WITH (publish = 'insert')",
	},
}

// insert writes versions from to to of aggregate a0 into a table that may have another name than outbox.
func (r *rig) insert(t *testing.T, table string, from, to int) {
	t.Helper()
	r.exec(t, `INSERT INTO `+table+` (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
		SELECT gen_random_uuid(), 'Car', 'a0', v, 'CarUpdated', jsonb_build_object('version', v) FROM generate_series($1::int, $2::int) AS v`, from, to)
}

// While the relay streams, inserts stop being published. The slot must not be confirmed past them, and the relay must
// say so. It must remember that when somebody undoes the change and starts it again, because the slot still cannot see
// those inserts.
func TestInsertsThatAreNotPublishedAreNoticed(t *testing.T) {
	t.Parallel()
	for name, change := range unpublishing {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if name == "Filtered" || name == "ColumnList" {
				pgtest.RequireFilters(t, r.db.Pool)
			}
			ended := r.run(t)
			r.streaming(t)
			r.append(t, "a", 1, 1, 3)
			r.await(t, 3)

			r.exec(t, change.do)
			r.insert(t, change.insertInto, 4, 6)
			setup := r.setupError(t, ended)
			require.Contains(t, setup.Problem, "outbox")
			remedy := "SELECT pg_drop_replication_slot('" + r.slot + "')"
			require.Contains(t, setup.Remedy, remedy)
			if change.insertInto == "outbox" { // a table that is only renamed takes its place in the publication along
				require.Less(t, r.distinct(t), 6, "the change kept nothing out: the fault did not strike")
			}

			r.exec(t, change.undo)
			r.insert(t, "outbox", 7, 9)
			r.eventually(t, "the server to let go of the slot", func() bool { return !r.slotActive(t) })
			setup = r.setupError(t, r.run(t)) // started again without the remedy
			require.Contains(t, setup.Remedy, remedy)
			require.Equal(t, 1, strings.Count(r.logged(), "load complete"), "the slot is there")

			r.eventually(t, "the remedy", func() bool { _, err := r.db.Pool.Exec(t.Context(), remedy); return err == nil })
			r.start(t)
			r.requireWhole(t, r.await(t, 9))
		})
	}
}

// A change that is undone before the next look. The publication's own rows in the catalog tell of it, and the table's rows follow its OID.
func TestAChangeThatIsUndoneAtOnceIsNoticed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TakenOutOfThePublication", "PublishedWithoutInserts", "Filtered", "ColumnList", "PublicationDropped"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := unpublishing[name]
			r := newRig(t)
			if name == "Filtered" || name == "ColumnList" {
				pgtest.RequireFilters(t, r.db.Pool)
			}
			ended := r.run(t)
			r.streaming(t)
			r.append(t, "a", 1, 1, 3)
			r.await(t, 3)
			r.exec(t, change.do+`; INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
				VALUES (gen_random_uuid(), 'Car', 'a0', 4, 'CarUpdated', '{}'); `+change.undo)
			setup := r.setupError(t, ended)
			remedy := "SELECT pg_drop_replication_slot('" + r.slot + "')"
			require.Contains(t, setup.Remedy, remedy)
			r.eventually(t, "the remedy", func() bool { _, err := r.db.Pool.Exec(t.Context(), remedy); return err == nil })
			r.start(t)
			r.requireWhole(t, r.await(t, 4))
		})
	}
	t.Run("Renamed", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.start(t)
		r.streaming(t)
		r.append(t, "a", 1, 1, 3)
		r.await(t, 3)
		r.exec(t, `ALTER TABLE outbox RENAME TO events`+`; INSERT INTO events (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			VALUES (gen_random_uuid(), 'Car', 'a0', 4, 'CarUpdated', '{}'); ALTER TABLE events RENAME TO outbox`)
		r.append(t, "a", 1, 5, 5)
		r.requireWhole(t, r.await(t, 5))
	})
}

// A change whose transaction is open may count as committed in the WAL before a look sees it. A
// look before its end proves nothing.
func TestNothingIsConfirmedBesideAnOpenChange(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, nil) // an open transaction keeps every other test's relay from making its slot
	r.start(t)
	r.streaming(t)
	tx, err := r.db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), "ALTER PUBLICATION outbox_publication SET (publish = 'update')")
	require.NoError(t, err)
	var change string // no look has proven more than this
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&change))
	passed := func() (passed bool) {
		require.NoError(t, r.db.Pool.QueryRow(t.Context(),
			"SELECT confirmed_flush_lsn > $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", r.slot, change).Scan(&passed))
		return passed
	}
	r.append(t, "a", 1, 1, 3)
	r.await(t, 3)
	r.eventually(t, "a look", func() bool { return strings.Contains(r.logged(), "an open transaction changes") })
	r.eventually(t, "the answer of Kinesis", func() bool { return strings.Contains(r.logged(), "msg=put") })
	for range 3 {
		replied := r.replied(t)
		r.eventually(t, "a status", func() bool { return r.replied(t) != replied })
		require.False(t, passed())
	}
	require.NoError(t, tx.Rollback(t.Context()))
	r.eventually(t, "the position to move", passed)
	r.append(t, "a", 1, 4, 4)
	r.requireWhole(t, r.await(t, 4))
}

// replied returns when the server last heard the relay's position.
func (r *rig) replied(t *testing.T) (at string) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), `SELECT coalesce(r.reply_time::text, '') FROM pg_stat_replication r
		JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1`, r.slot).Scan(&at))
	return at
}

func (r *rig) slotActive(t *testing.T) (active bool) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT active FROM pg_replication_slots WHERE slot_name = $1", r.slot).Scan(&active))
	return active
}

// Somebody else's messages in the WAL do not concern the relay, and neither does the mark of another slot.
func TestMessagesOfOthersAreNoMark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.streaming(t)
	r.exec(t, "SELECT pg_logical_emit_message(true, 'walrelay', 'another_slot'), pg_logical_emit_message(false, 'other', $1)", r.slot)
	r.append(t, "a", 3, 1, 2)
	r.requireWhole(t, r.await(t, 6))
	require.NotContains(t, r.logged(), "inserts may be missing")
	require.Equal(t, 1, strings.Count(r.logged(), "load complete"))
}

// The server lets every user write into the WAL, and the slot's name is no secret. So a user without any right can stop the relay. The
// events are safe, and the refusal names this cause. docs/operations.md takes the function from everybody but the relay.
func TestAnyUserCanWriteTheMark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	nobody := "nobody_" + r.slot
	r.exec(t, "CREATE ROLE "+nobody)
	t.Cleanup(func() { r.exec(t, "DROP ROLE "+nobody) })
	mark := func(role string) error {
		return pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+role)
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), "SELECT pg_logical_emit_message(false, 'walrelay', slot_name) FROM pg_replication_slots WHERE slot_name = $1", r.slot)
			return err
		})
	}
	ended := r.run(t)
	r.streaming(t)
	r.append(t, "a", 1, 1, 1)
	require.NoError(t, mark(nobody))
	r.append(t, "a", 1, 2, 2)
	for _, ended := range []<-chan error{ended, r.run(t)} { // a later start stops, too
		setup := r.setupError(t, ended)
		require.Contains(t, setup.Problem, "Any user of the database can write it with pg_logical_emit_message, too")
		require.Contains(t, setup.Remedy, "SELECT pg_drop_replication_slot('"+r.slot+"')")
	}
	r.eventually(t, "the remedy", func() bool {
		_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.slot)
		return err == nil
	})
	page, err := os.ReadFile(filepath.Join(labtest.Root(t), "docs", "operations.md"))
	require.NoError(t, err)
	revoke := regexp.MustCompile(`(?s)\nDO \$\$.+?END \$\$;\n`).FindAllString(string(page), -1)
	require.Len(t, revoke, 1)
	r.exec(t, revoke[0])
	r.start(t)
	r.streaming(t)
	var refused *pgconn.PgError
	require.ErrorAs(t, mark(nobody), &refused)
	require.Equal(t, "42501", refused.Code)
	r.requireWhole(t, r.await(t, 2))
	require.NoError(t, mark("outbox_relay"), "the relay has to write the mark")
}

// A change of the table that the decoder refuses comes after rows that it understands. These rows
// arrive once and are confirmed. If they were not, each session would send them again and end at
// the same place.
func TestWhatWasReadBeforeAnErrorIsConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.start(t)
	r.streaming(t)
	require.NoError(t, stop())
	var inside string // a position in the WAL before the commit, because only the transaction's own WAL counts
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), fillSQL, "a", 200, 10); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&inside)
	}))
	r.exec(t, "ALTER TABLE outbox RENAME COLUMN event_data TO payload")
	r.exec(t, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, payload)
		VALUES (gen_random_uuid(), 'Car', 'b', 1, 'CarUpdated', '{}')`)
	setup := r.setupError(t, r.run(t))
	require.Contains(t, setup.Problem, "column event_data of outbox is missing")
	require.Equal(t, 2000, len(r.arrived(t)))
	r.eventually(t, "the server to let go of the slot", func() bool { return !r.slotActive(t) }) // it has read the last status
	var confirmed bool
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT confirmed_flush_lsn > $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", r.slot, inside).Scan(&confirmed))
	require.True(t, confirmed)

	r.exec(t, "ALTER TABLE outbox RENAME COLUMN payload TO event_data")
	remedy := "SELECT pg_drop_replication_slot('" + r.slot + "')"
	require.Contains(t, setup.Remedy, remedy)
	r.eventually(t, "the remedy", func() bool { _, err := r.db.Pool.Exec(t.Context(), remedy); return err == nil })
	r.start(t)
	r.requireWhole(t, r.await(t, 2001))
}

// The slot begins where the load begins. A change that is made and undone while rows are loaded hides inserts from the slot, and the
// snapshot has none of them.
func TestAChangeDuringTheLoadIsNoticed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TakenOutOfThePublication", "PublishedWithoutInserts"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := unpublishing[name]
			r := newRig(t)
			r.append(t, "a", 50, 1, 20)
			stuck := putFault(awslocal.EntryError)
			stuck.Match, stuck.Code = "a7", "InternalFailure"
			active := r.aws.Faults().Add(stuck)
			r.start(t)
			r.eventually(t, "the load", func() bool { return r.distinct(t) > 500 })
			r.exec(t, change.do)
			r.insert(t, "outbox", 21, 21)
			r.exec(t, change.undo)
			active.Off()
			r.requireWhole(t, r.await(t, 1001))
			require.Contains(t, r.logged(), "was changed while the rows were loaded")
		})
	}
}

// The slot is dropped, and before the relay's look another relay makes it again and dies. A change
// that is made and undone after that is not in the new slot, so the relay must not take the look for
// the state that the slot began with.
func TestAChangeBesideANewSlotIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var gated, held atomic.Bool
	slotGate, lookGate := make(chan struct{}), make(chan struct{})
	openSlot, openLook := sync.OnceFunc(func() { close(slotGate) }), sync.OnceFunc(func() { close(lookGate) })
	r.proxy(t, func(_ *labtest.Proxy, fromServer bool, piece []byte) []byte {
		switch {
		case fromServer || !gated.Load():
		case bytes.Contains(piece, []byte("name: SlotGet ")):
			<-slotGate
		case bytes.Contains(piece, []byte("name: PublicationLook ")):
			held.Store(true)
			<-lookGate
		}
		return piece
	})
	defer openLook()
	defer openSlot()
	relayEnded := r.run(t)
	r.streaming(t)
	r.append(t, "a", 1, 1, 3)
	r.await(t, 3)
	other := r.slot + "_other"
	r.exec(t, "SELECT pg_copy_logical_replication_slot($1, $2)", r.slot, other) // what another relay would make

	gated.Store(true)
	r.exec(t, "SELECT pg_terminate_backend($1)", r.streaming(t))
	r.eventually(t, "the slot to be free", func() bool {
		_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.slot)
		return err == nil
	})
	openSlot()
	r.eventually(t, "the next session's look", held.Load)
	r.exec(t, "SELECT pg_copy_logical_replication_slot($1, $2)", other, r.slot)
	r.exec(t, "SELECT pg_drop_replication_slot($1)", other)
	change := unpublishing["PublishedWithoutInserts"]
	r.exec(t, change.do)
	r.insert(t, "outbox", 4, 4)
	r.exec(t, change.undo)
	openLook()
	setup := r.setupError(t, relayEnded)
	require.Contains(t, setup.Problem, "was changed under the relay")
	r.eventually(t, "the remedy", func() bool {
		_, err := r.db.Pool.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.slot)
		return err == nil
	})
	r.start(t)
	r.requireWhole(t, r.await(t, 4))
}
