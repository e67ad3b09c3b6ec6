package retention_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// change is something that hides inserts from a relay, and what takes it back.
type change struct {
	do, undo string
	problem  string
	since    int // server_version_num that has it
}

// published has the changes after which the slot confirms past every row here. That proves nothing
// about rows that were written after the change.
var published = map[string]change{
	"SwappedByRename": {
		"ALTER TABLE outbox RENAME TO outbox_old; CREATE TABLE outbox (LIKE outbox_old INCLUDING ALL); GRANT SELECT, DELETE ON outbox TO outbox_retention",
		"DROP TABLE outbox; ALTER TABLE outbox_old RENAME TO outbox", "the table is not part of it", 0,
	},
	"TakenOut": {
		"ALTER PUBLICATION outbox_publication DROP TABLE outbox", "ALTER PUBLICATION outbox_publication ADD TABLE outbox", "the table is not part of it", 0,
	},
	"UpdatesOnly": {
		"ALTER PUBLICATION outbox_publication SET (publish = 'update')", "ALTER PUBLICATION outbox_publication SET (publish = 'insert')", "it leaves inserts out", 0,
	},
	"RowFilter": {
		"ALTER PUBLICATION outbox_publication SET TABLE outbox WHERE (aggregate_version > 1)", "ALTER PUBLICATION outbox_publication SET TABLE outbox",
		"it has a row filter", 150_000,
	},
	"OtherSchema": {"CREATE SCHEMA app; ALTER TABLE outbox SET SCHEMA app", "ALTER TABLE app.outbox SET SCHEMA public", "there is no such table", 0},
	"OtherName":   {"ALTER TABLE outbox RENAME TO events", "ALTER TABLE events RENAME TO outbox", "there is no such table", 0},
	"Dropped": {
		"DROP PUBLICATION outbox_publication", "CREATE PUBLICATION outbox_publication FOR TABLE outbox WITH (publish = 'insert')", "there is no such publication", 0,
	},
}

// skipBefore skips a test of what the server does not have.
func (r *rig) skipBefore(t *testing.T, version int) {
	t.Helper()
	var is int
	require.NoError(t, r.pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&is))
	if is < version {
		t.Skipf("the server is %d, this needs %d", is, version)
	}
}

func TestNothingIsDeletedWhileInsertsAreNotPublished(t *testing.T) {
	t.Parallel()
	for name, change := range published {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.skipBefore(t, change.since)
			r.rows(t, "older", 3, 15)
			r.follow(t)
			r.exec(t, change.do)
			if name != "OtherSchema" && name != "OtherName" {
				r.rows(t, "unsent", 2, 15)
			}
			result, err := r.purger(t, short).Purge(t.Context(), r.conn)
			require.ErrorContains(t, err, "publication outbox_publication does not publish every insert into public.outbox ("+change.problem+")")
			require.ErrorContains(t, err, "no row is deleted")
			require.Zero(t, result.Deleted)
			_, err = r.purger(t, short).Plan(t.Context(), r.conn)
			require.ErrorContains(t, err, change.problem)
			r.exec(t, change.undo)
			require.Contains(t, r.kept(t), "older 3")
		})
	}
}

// A look at the start of a run holds for that moment. The look that counts comes after the slot has confirmed the rows' position.
func TestAPublicationThatChangesInARoundKeepsTheRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	r.follow(t)
	struck := 0
	r.hook.after = func(query string, _ int64) {
		if query == "RetentionPosition" {
			struck++
			r.exec(t, published["TakenOut"].do)
		}
	}
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.Equal(t, 1, struck)
	require.ErrorContains(t, err, "the table is not part of it")
	require.Zero(t, result.Deleted)
	require.Equal(t, "older 3", r.kept(t))
}

// An open change may have its commit in the WAL already, before the rows. They were then not
// published, but the look finds nothing wrong yet.
func TestAnOpenChangeKeepsTheRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows(t, "older", 3, 15)
	r.hook.after = func(query string, _ int64) {
		if query == "RetentionPosition" {
			r.advance(t, r.insertLSN(t)) // before the first look at the slot, so that the purge has to wait for the change only
		}
	}
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), published["UpdatesOnly"].do)
	require.NoError(t, err)
	result, err := r.purger(t, short).Purge(t.Context(), r.conn)
	require.ErrorContains(t, err, "an open transaction changes table outbox or its publication")
	require.Zero(t, result.Deleted)
	require.Equal(t, "older 3", r.kept(t))

	require.NoError(t, tx.Rollback(t.Context()))
	result, err = r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 3, result.Deleted)
}

// DMS reads the table by its name and does not use the publication.
func TestUnderDMSTheTableCounts(t *testing.T) {
	t.Parallel()
	const unpublished = "DROP PUBLICATION outbox_publication; "
	for name, change := range map[string]change{
		"NoPublication": {unpublished, "", "", 0},
		"OtherName":     {"ALTER TABLE outbox RENAME TO events", "ALTER TABLE events RENAME TO outbox", "there is no table public.outbox", 0},
		"Unlogged":      {unpublished + "ALTER TABLE outbox SET UNLOGGED", "", "table public.outbox is not logged", 0},
		"LongKey":       {"ALTER TABLE outbox ALTER COLUMN aggregate_id TYPE text", "", "column aggregate_id of public.outbox is not varchar", 0},
		"NoIdentity":    {"ALTER TABLE outbox REPLICA IDENTITY NOTHING", "", "the replica identity of public.outbox has no aggregate_id", 0},
		"OtherIdentity": {"ALTER TABLE outbox REPLICA IDENTITY USING INDEX outbox_id_key", "", "the replica identity of public.outbox has no aggregate_id", 0},
		"WholeIdentity": {"ALTER TABLE outbox REPLICA IDENTITY FULL", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.dropSlot(t)
			r.exec(t, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.slot)
			r.rows(t, "older", 3, 15)
			r.follow(t)
			r.exec(t, change.do)
			result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
			if change.problem == "" {
				require.NoError(t, err)
				require.EqualValues(t, 3, result.Deleted)
				return
			}
			require.ErrorContains(t, err, change.problem)
			require.Zero(t, result.Deleted)
			r.exec(t, change.undo)
			require.Equal(t, "older 3", r.kept(t))
		})
	}
}
