package migrate_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
)

func partition(t *testing.T, db *pgtest.DB, width, first time.Duration) migrate.Partitioned {
	t.Helper()
	config, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	done, err := migrate.Partition(t.Context(), config, width, first, migrate.Options{})
	require.NoError(t, err)
	return done
}

// rights are all rights on outbox and its columns. Up to PostgreSQL 15 some kinds do not exist.
const rights = `SELECT string_agg(format('%s %s %s', attname, grantee::regrole, privilege_type), ', ' ORDER BY attname, grantee::regrole::text, privilege_type)
	FROM (SELECT '' AS attname, relacl AS acl, relowner FROM pg_class WHERE oid = '%[1]s'::regclass
		UNION ALL SELECT attname, attacl, 0 FROM pg_attribute WHERE attrelid = '%[1]s'::regclass AND attacl IS NOT NULL) AS granted, aclexplode(acl)
	WHERE grantee <> relowner`

func TestPartition(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config := db.Pool.Config().ConnConfig
	require.NoError(t, insertOutbox(t, db, map[string]any{"aggregate_id": "before"}))
	_, err := db.Pool.Exec(t.Context(), `CREATE TABLE seen (id uuid);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END';
		CREATE TRIGGER see AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION see();
		GRANT SELECT (id) ON outbox TO outbox_carstats WITH GRANT OPTION`)
	require.NoError(t, err)
	before := query(t, config, strings.ReplaceAll(rights, "%[1]s", "outbox"))
	require.Contains(t, before, "outbox_canary INSERT")

	done := partition(t, db, 24*time.Hour, migrate.FirstPartition)
	require.WithinRange(t, done.Until, time.Now().Add(migrate.FirstPartition), time.Now().Add(migrate.FirstPartition+25*time.Hour))
	require.Equal(t, before, query(t, config, strings.ReplaceAll(rights, "%[1]s", "outbox")))
	require.Empty(t, query(t, config, strings.ReplaceAll(rights, "%[1]s", done.First)), "rights on a partition bypass those on outbox")
	require.Equal(t, "1", query(t, config, "SELECT count(*)::text FROM outbox"))
	require.Equal(t, done.First, query(t, config, "SELECT tableoid::regclass::text FROM outbox"))
	require.NoError(t, insertOutbox(t, db, map[string]any{"created_at": done.Until.Add(time.Hour)}))
	require.Equal(t, "1", query(t, config, "SELECT count(*)::text FROM seen"), "the trigger is on the partitioned table")
	require.Empty(t, query(t, config, "SELECT string_agg(conname, ' ') FROM pg_constraint WHERE conname = 'outbox_partition_check'"))

	again := partition(t, db, 24*time.Hour, migrate.FirstPartition)
	require.Equal(t, migrate.Partitioned{}, again)
	_, err = migrate.Up(t.Context(), config, migrate.Options{})
	require.NoError(t, err)
}

// While others write, the table becomes a partition without a look at its rows under a lock that keeps them out.
func TestPartitionReadsNoRowUnderALock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for range 3 {
		require.NoError(t, insertOutbox(t, db, nil))
	}
	config := db.Pool.Config().ConnConfig
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		return conn.Exec(ctx, "SET client_min_messages = debug1").Close()
	}
	var said []string
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { said = append(said, notice.Message) }
	done, err := migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{})
	require.NoError(t, err)
	// Without this the server would read every row.
	require.Contains(t, said, fmt.Sprintf("partition constraint for table %q is implied by existing constraints", done.First))
}

// Who is kept from the table has to stay out of the way of everybody else, and must leave nothing that refuses inserts later.
func TestPartitionGivesUpAndLeavesTheTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	require.NoError(t, insertOutbox(t, db, nil))
	config := db.Pool.Config().ConnConfig
	before := schema(t, config)
	open, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = open.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = open.Exec(t.Context(), "SELECT FROM outbox")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := migrate.Partition(ctx, config, 24*time.Hour, 0, migrate.Options{})
		failed <- err
	}()
	// The reader keeps only the locks of prepare and attach out, one after the other.
	awaitTry := func() {
		labtest.Eventually(t, "a try", func() bool {
			return query(t, config, "SELECT count(*)::text FROM pg_locks WHERE relation = 'outbox'::regclass AND NOT granted") == "1"
		})
	}
	awaitTry()
	require.NoError(t, insertOutbox(t, db, nil), "writers go on after the try")
	awaitTry()
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.NoError(t, open.Rollback(t.Context()))
	require.Equal(t, before, schema(t, config))
}

// Without its functions nobody attaches the next partitions, and inserts fail a week later.
func TestPartitionComesWithItsFunctions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config := db.Pool.Config().ConnConfig
	before := schema(t, config)
	_, err := db.Pool.Exec(t.Context(), `CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused''; END';
		CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION public.refuse()`)
	require.NoError(t, err)
	_, err = migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{})
	require.ErrorContains(t, err, "refused")
	_, err = db.Pool.Exec(t.Context(), "DROP EVENT TRIGGER refuse; DROP FUNCTION public.refuse()")
	require.NoError(t, err)
	require.Equal(t, before, schema(t, config))
}

// A database that was partitioned before has the function that returned a partition without an end. The migration mends it, and so does the
// command.
func TestMigrationMendsTheClosingFunction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config := db.Pool.Config().ConnConfig
	partition(t, db, 24*time.Hour, 0)
	const definition = "SELECT pg_get_functiondef('outbox_partition_close(interval)'::regprocedure) || proacl::text FROM pg_proc WHERE proname = 'outbox_partition_close'"
	mended := query(t, config, definition)
	old := strings.Replace(mended, "part IS NULL OR ended IS NULL OR keep IS NULL OR", "part IS NULL OR", 1)
	require.NotEqual(t, mended, old)
	for name, mend := range map[string]func() error{
		"Migration": func() error {
			_, err := migrate.DownTo(t.Context(), config, 9, migrate.Options{})
			require.NoError(t, err)
			require.Equal(t, old, query(t, config, definition))
			_, err = migrate.Up(t.Context(), config, migrate.Options{})
			return err
		},
		"Command": func() error {
			_, err := migrate.Partition(t.Context(), config, 24*time.Hour, 0, migrate.Options{})
			return err
		},
		"MigrationOverTheNewOne": func() error {
			_, err := migrate.DownTo(t.Context(), config, 9, migrate.Options{})
			require.NoError(t, err)
			_, err = db.Pool.Exec(t.Context(), mended[:strings.LastIndex(mended, "{")])
			require.NoError(t, err)
			_, err = migrate.Up(t.Context(), config, migrate.Options{})
			return err
		},
	} {
		_, err := db.Pool.Exec(t.Context(), old[:strings.LastIndex(old, "{")])
		require.NoError(t, err)
		require.NoError(t, mend(), name)
		require.Equal(t, mended, query(t, config, definition), name)
	}
}

func TestPartitionRefuses(t *testing.T) {
	t.Parallel()
	t.Run("PendingMigrations", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.Partition(t.Context(), emptyDatabase(t), 24*time.Hour, 0, migrate.Options{})
		require.ErrorContains(t, err, "00001_cars.sql is pending")
	})
	t.Run("UnderDMS", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		slot := "dms_" + strings.ReplaceAll(uuid.NewString(), "-", "_")
		_, err := db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot)
		require.NoError(t, err)
		_, err = migrate.Partition(t.Context(), db.Pool.Config().ConnConfig, 24*time.Hour, 0, migrate.Options{})
		require.ErrorContains(t, err, "slot "+slot+" is of AWS DMS, which does not follow partitions")
	})
}

// PostgreSQL cannot keep a key over partitions that does not contain created_at. Each partition has the keys of the table. Over two
// partitions the version is right because it comes from the aggregate's row, under its lock.
func TestKeysOfAPartitionedOutbox(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config := db.Pool.Config().ConnConfig
	done := partition(t, db, 24*time.Hour, 0)

	row := map[string]any{"id": uuid.NewString(), "aggregate_id": "twice", "created_at": done.Until.Add(-time.Minute)}
	require.NoError(t, insertOutbox(t, db, row))
	require.Contains(t, refusal(t, insertOutbox(t, db, row)), "outbox_pkey")
	row["aggregate_version"] = 2
	require.Contains(t, refusal(t, insertOutbox(t, db, row)), "outbox_id_key")
	row["created_at"] = done.Until
	require.NoError(t, insertOutbox(t, db, row), "no key sees two partitions")
	row["id"] = uuid.NewString()
	require.Contains(t, refusal(t, insertOutbox(t, db, row)), "pkey", "a later partition has the keys, too")

	next := query(t, config, fmt.Sprintf("SELECT tableoid::regclass::text FROM outbox WHERE created_at = '%s'", done.Until.Format(time.RFC3339)))
	_, err := db.Pool.Exec(t.Context(), "DELETE FROM outbox")
	require.NoError(t, err)
	cars := newAPI(t, db.Pool)
	id, err := cars.create(t.Context())
	require.NoError(t, err)
	group, ctx := errgroup.WithContext(t.Context())
	var crossed atomic.Bool
	var changes atomic.Int64
	for range 4 {
		group.Go(func() error {
			for !crossed.Load() {
				if err := cars.change(ctx, id); err != nil {
					return err
				}
				changes.Add(1)
			}
			return nil
		})
	}
	labtest.Eventually(t, "a change in the first partition", func() bool { return changes.Load() > 0 })
	// The bound between the partitions passes while the writers are at work.
	_, err = db.Pool.Exec(t.Context(), fmt.Sprintf(`DO $$
		DECLARE
			bound text;
		BEGIN
			ALTER TABLE outbox DETACH PARTITION %[1]s;
			ALTER TABLE outbox DETACH PARTITION %[2]s;
			bound := quote_literal(clock_timestamp() + '100 ms');
			EXECUTE 'ALTER TABLE outbox ATTACH PARTITION %[1]s FOR VALUES FROM (MINVALUE) TO (' || bound || ')';
			EXECUTE 'ALTER TABLE outbox ATTACH PARTITION %[2]s FOR VALUES FROM (' || bound || $to$) TO ('%[3]s')$to$;
		END $$`, done.First, next, done.Until.AddDate(0, 0, 1).Format(time.RFC3339)))
	require.NoError(t, err)
	labtest.Eventually(t, "versions in both partitions", func() bool {
		return query(t, config, "SELECT count(DISTINCT tableoid)::text FROM outbox WHERE aggregate_version > 1") == "2"
	})
	crossed.Store(true)
	require.NoError(t, group.Wait())
	n := changes.Load() + 1
	require.Equal(t, fmt.Sprintf("%d rows, %d versions, up to %d", n, n, n), query(t, config,
		"SELECT format('%s rows, %s versions, up to %s', count(*), count(DISTINCT aggregate_version), max(aggregate_version)) FROM outbox"))
}
