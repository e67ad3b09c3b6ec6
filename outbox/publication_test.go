package outbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

// Each way to keep an insert out of the publication has a reason of its own and a remedy that names the statement.
func TestEachReasonWhyInsertsAreNotPublishedIsTold(t *testing.T) {
	t.Parallel()
	const (
		partitioned = "DROP TABLE outbox; CREATE TABLE outbox (id uuid, created_at timestamptz) PARTITION BY RANGE (created_at);"
		migrated    = "run the migrations (make migrate)"
	)
	for name, tc := range map[string]struct{ sql, why, remedy string }{
		"AsMigrated":           {"SELECT", "", ""},
		"AllTables":            {"DROP PUBLICATION outbox_publication; CREATE PUBLICATION outbox_publication FOR ALL TABLES", "", ""},
		"PartitionedViaRoot":   {partitioned + "ALTER PUBLICATION outbox_publication SET TABLE outbox; ALTER PUBLICATION outbox_publication SET (publish_via_partition_root = true)", "", ""},
		"Renamed":              {"ALTER TABLE outbox RENAME TO events", "there is no such table", migrated},
		"AView":                {"ALTER TABLE outbox RENAME TO events; CREATE VIEW outbox AS SELECT * FROM events", "there is no such table", migrated},
		"NotLogged":            {"ALTER PUBLICATION outbox_publication DROP TABLE outbox; ALTER TABLE outbox SET UNLOGGED", "is not logged", "SET LOGGED"},
		"PartitionNotLogged":   {partitioned + "CREATE UNLOGGED TABLE part PARTITION OF outbox DEFAULT", "is not logged", "SET LOGGED"},
		"PartitionOfAnother":   {"ALTER TABLE outbox RENAME TO old; CREATE TABLE root (LIKE old) PARTITION BY RANGE (created_at); CREATE TABLE outbox PARTITION OF root DEFAULT", "is a partition of another", "detach it"},
		"Inherited":            {"CREATE TABLE child () INHERITS (outbox)", "other tables inherit from it", "NO INHERIT"},
		"NoPublication":        {"DROP PUBLICATION outbox_publication", "there is no such publication", "CREATE PUBLICATION outbox_publication FOR TABLE public.outbox WITH (publish = 'insert')"},
		"NotAMember":           {"ALTER PUBLICATION outbox_publication DROP TABLE outbox", "is not part of it", "ADD TABLE public.outbox"},
		"WithoutInserts":       {"ALTER PUBLICATION outbox_publication SET (publish = 'update')", "it leaves inserts out", "SET (publish = 'insert')"},
		"PartitionedByItsName": {partitioned + "ALTER PUBLICATION outbox_publication SET TABLE outbox", "the table is partitioned", "publish_via_partition_root = true"},
		"RowFilter":            {"ALTER PUBLICATION outbox_publication SET TABLE outbox WHERE (aggregate_version > 1)", "it has a row filter", "SET TABLE public.outbox"},
		"ColumnList":           {"ALTER PUBLICATION outbox_publication SET TABLE outbox (id, aggregate_type, aggregate_id, aggregate_version)", "it has a column list", "SET TABLE public.outbox"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			if name == "RowFilter" || name == "ColumnList" {
				var version int
				require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version))
				if version < 150_000 {
					t.Skip("PostgreSQL 14 has neither row filters nor column lists")
				}
			}
			_, err := db.Pool.Exec(t.Context(), tc.sql, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			look, err := outbox.LookAtPublication(t.Context(), db.Pool)
			require.NoError(t, err)
			require.False(t, look.Changing)
			if tc.why == "" {
				require.Empty(t, look.Problem)
				require.Empty(t, look.Remedy)
				return
			}
			require.Contains(t, look.Problem, tc.why)
			require.Contains(t, look.Remedy, tc.remedy)
		})
	}
}
