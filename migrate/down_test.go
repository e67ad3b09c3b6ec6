package migrate_test

import (
	"crypto/rand"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/migrate"
	migrations "rds-outbox-demo/sql/migrations"
)

func TestDownTo(t *testing.T) {
	t.Parallel()

	t.Run("EachVersionAndUpAgainLeavesTheSameSchema", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		// PostgreSQL 14 grants it, and 00007 does not give it back.
		query(t, conn, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
		files := fstest.MapFS{}
		at := []string{schema(t, conn)} // by version
		all, err := fs.Glob(migrations.FS, "*.sql")
		require.NoError(t, err)
		for _, name := range all {
			text, err := fs.ReadFile(migrations.FS, name)
			require.NoError(t, err)
			files[name] = &fstest.MapFile{Data: text}
			result, err := migrate.Up(t.Context(), conn, migrate.Options{Files: files})
			require.NoError(t, err)
			require.Equal(t, []string{name}, names(result.Ran))
			at = append(at, schema(t, conn))
		}
		newest := len(all)
		require.Contains(t, at[newest], "grant outbox outbox_api INSERT")
		require.Contains(t, at[newest], "grant outbox.created_at outbox_retention SELECT")
		require.Contains(t, at[newest], "publication outbox_publication outbox t f f f")

		for version := newest - 1; version >= 0; version-- {
			result, err := migrate.DownTo(t.Context(), conn, int64(version), migrate.Options{})
			require.NoError(t, err)
			require.Equal(t, all[version:version+1], names(result.Ran))
			require.EqualValues(t, version, result.Version)
			require.Equal(t, at[version], schema(t, conn), "version %d", version)
		}
		require.NotRegexp(t, `outbox|cars`, schema(t, conn))

		again, err := migrate.Up(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, all, names(again.Ran))
		require.Equal(t, at[newest], schema(t, conn))

		down, err := migrate.DownTo(t.Context(), conn, 0, migrate.Options{})
		require.NoError(t, err)
		require.Len(t, down.Ran, newest)
		require.Zero(t, down.Version)
	})

	t.Run("PublicationStaysWhileASlotUsesIt", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		_, err := migrate.Up(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		slot := "migrate_" + strings.ToLower(rand.Text()[:8]) // slots belong to the server
		query(t, conn, "SELECT slot_name::text FROM pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")

		_, before, err := migrate.Status(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		_, err = migrate.DownTo(t.Context(), conn, 2, migrate.Options{})
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "00003_outbox_publication.sql", failed.File)
		require.ErrorContains(t, err, "done before it: nothing")
		_, after, err := migrate.Status(t.Context(), conn, migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, before, after, "the steps before it were not taken")
		require.Equal(t, "inbox", query(t, conn, "SELECT to_regclass('inbox')::text"))
		require.Equal(t, "down", failed.Direction)
		require.ErrorContains(t, failed, "in use by replication slot "+slot)
		require.ErrorContains(t, failed, "hint: Stop the relay")
		require.Equal(t, "1", query(t, conn, "SELECT count(*)::text FROM pg_publication WHERE pubname = 'outbox_publication'"))

		query(t, conn, "SELECT pg_drop_replication_slot('"+slot+"')::text")
		_, err = migrate.DownTo(t.Context(), conn, 2, migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, "0", query(t, conn, "SELECT count(*)::text FROM pg_publication"))
	})

	t.Run("RowsStayUnlessDropRowsIsSet", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		files := fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\n-- +goose Down\nDROP TABLE a;\n")},
			"00002_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE \"B\" (n int);\n-- +goose Down\nDROP TABLE \"B\";\n")},
			"00003_c.sql": {Data: []byte("-- +goose Up\nALTER TABLE a ADD c int;\n-- +goose Down\nALTER TABLE a DROP c;\n")},
		}
		_, err := migrate.Up(t.Context(), conn, migrate.Options{Files: files})
		require.NoError(t, err)
		query(t, conn, `INSERT INTO a VALUES (1), (2); INSERT INTO "B" VALUES (1)`)

		_, err = migrate.DownTo(t.Context(), conn, 1, migrate.Options{Files: files})
		var rows *migrate.RowsError
		require.ErrorAs(t, err, &rows)
		require.EqualError(t, err, `migrating down to version 1 would delete 1 row of "B", column c of 2 rows of a: nothing was changed`)
		_, version, err := migrate.Status(t.Context(), conn, migrate.Options{Files: files})
		require.NoError(t, err)
		require.EqualValues(t, 3, version)
		require.Equal(t, "1", query(t, conn, `SELECT count(*)::text FROM "B"`))

		result, err := migrate.DownTo(t.Context(), conn, 1, migrate.Options{Files: files, DropRows: true})
		require.NoError(t, err)
		require.EqualValues(t, 1, result.Version)
		require.Equal(t, "2", query(t, conn, `SELECT count(*)::text FROM a`))
	})

	t.Run("NoTransactionGoesByItself", func(t *testing.T) {
		t.Parallel()
		conn := emptyDatabase(t)
		options := migrate.Options{Files: fstest.MapFS{
			"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\n-- +goose Down\nDROP TABLE a;\n")},
			"00002_i.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY i ON a (n);\n-- +goose Down\nDROP INDEX CONCURRENTLY i;\n")},
		}}
		_, err := migrate.Up(t.Context(), conn, options)
		require.NoError(t, err)
		_, err = migrate.DownTo(t.Context(), conn, 0, options)
		require.ErrorContains(t, err, "00002_i.sql says NO TRANSACTION")
		require.ErrorContains(t, err, "down-to 2 and then down-to 1")
		for _, version := range []int64{1, 0} {
			_, err = migrate.DownTo(t.Context(), conn, version, options)
			require.NoError(t, err)
		}
	})

	t.Run("NegativeVersionIsRefused", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.DownTo(t.Context(), &pgx.ConnConfig{}, -1, migrate.Options{})
		require.ErrorContains(t, err, "version -1")
	})
}
