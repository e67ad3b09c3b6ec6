package migrate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/pressly/goose/v3/lock"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/outbox"
)

//go:embed partition.sql
var partitionFunctions string

const (
	// partitionLock bounds each wait for a lock on table outbox. Every writer that comes later waits behind it.
	partitionLock = "100ms"
	// lockPause is between two tries.
	lockPause = time.Second
	// lockTries is how often a lock is tried. A transaction that holds it for longer has to end first.
	lockTries = 60
	// cancelTime is how long the server may take to cancel a statement, until the connection is given up.
	cancelTime = 10 * time.Second
)

// Partitioned is what Partition did.
type Partitioned struct {
	// First is the partition that the table became, or "" if outbox was partitioned before.
	First string
	// Until is the end of First.
	Until time.Time
	// Attached counts the partitions that were attached for later rows.
	Attached int
}

// PartitionWidth is the width of a partition, unless somebody needs another.
const PartitionWidth = 24 * time.Hour

// FirstPartition is how long the table takes new rows as the first partition, unless somebody needs less.
const FirstPartition = 7 * 24 * time.Hour

// Partition makes table outbox the first partition of a partitioned table of that name. It takes new rows for first at least, and for less
// than first and width. Later partitions are as wide as width, one second or more. Writers go on, and so does walrelay. On a table that has partitions it only replaces the functions of partition.sql.
// An error leaves the table as it was, and the next call starts over. It is about what needs a person, such as pending
// migrations, a DMS task, or a transaction that does not end. A process that is killed may leave the CHECK and the new table beside outbox.
// The next migration of any kind removes them (removeLeftovers).
//
// The obvious order makes a partition of the table first. That reads every row under a lock that keeps all writers out. So a CHECK that
// no reader needs says first which rows the partition may have. It is added without a look at the rows, and then validated beside the
// writers. After that the table becomes a partition in one short transaction, which reads no row.
//
// A relay finds another table under the name outbox. That looks as if somebody had swapped it, and inserts might be missing from the WAL.
// So the transaction writes into the publication's comment which identity it replaces (outbox.Look), under a lock that no insert passes.
func Partition(ctx context.Context, config *pgx.ConnConfig, width, first time.Duration, options Options) (Partitioned, error) {
	if width < time.Second || first < 0 {
		return Partitioned{}, fmt.Errorf("partitions of %s, the first one after %s: give one second or more", width, first)
	}
	config = config.Copy()
	pgsession.Fix(config, "migrate", options.Limits)
	// By default the end of ctx closes the connection, and then nothing takes the CHECK back. The server would even go on with it.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelTime}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return Partitioned{}, fmt.Errorf("connecting to partition outbox: %w", err)
	}
	defer func() {
		// The end of the session frees the lock, too, but a moment later. The next command would find it taken.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer cancel()
		_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock_all()")
		_ = conn.Close(ctx)
	}()
	partitioned, err := ready(ctx, config, conn, options)
	if err != nil {
		return Partitioned{}, fmt.Errorf("partitioning outbox: %w", err)
	}
	var done Partitioned
	if partitioned {
		_, err = conn.Exec(ctx, partitionFunctions)
	} else {
		done, err = swap(ctx, conn, width, first)
	}
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT public.outbox_partitions_attach()").Scan(&done.Attached)
	}
	if err != nil {
		return done, fmt.Errorf("partitioning outbox: %w", errors.Join(ctx.Err(), err)) // a cancelled statement does not say who cancelled it
	}
	return done, nil
}

// ready takes the lock of migrations and reports whether outbox is partitioned already. It returns an error where partitions would lose
// events or rights.
func ready(ctx context.Context, config *pgx.ConnConfig, conn *pgx.Conn, options Options) (partitioned bool, err error) {
	var locked bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lock.DefaultLockID).Scan(&locked); err != nil {
		return false, fmt.Errorf("asking for the migration lock: %w", err)
	}
	if !locked {
		return false, errors.New("another migration holds the lock: try again when it has finished")
	}
	files, _, err := Status(ctx, config, options)
	if err != nil {
		return false, err
	}
	for _, file := range files {
		if file.AppliedAt.IsZero() {
			return false, fmt.Errorf("%s is pending: apply the migrations first", file.File)
		}
	}
	queries := dbgen.New(conn)
	look, err := outbox.LookAtPublication(ctx, conn)
	if err == nil && look.Problem != "" {
		err = fmt.Errorf("%s: %s", look.Problem, look.Remedy)
	}
	if err != nil {
		return false, err
	}
	slots, err := queries.SlotsOfPlugin(ctx, "test_decoding")
	if err != nil {
		return false, fmt.Errorf("looking for slots of AWS DMS: %w", err)
	}
	if len(slots) > 0 {
		return false, fmt.Errorf("slot %s is of AWS DMS, which does not follow partitions: replace DMS by walrelay first (docs/deploy.md)", slots[0])
	}
	partitioned, err = queries.RetentionPartitioned(ctx)
	if err != nil {
		return false, fmt.Errorf("asking whether outbox is partitioned: %w", err)
	}
	return partitioned, nil
}

// swap makes the table a partition.
func swap(ctx context.Context, conn *pgx.Conn, width, first time.Duration) (done Partitioned, err error) {
	var bound string
	err = conn.QueryRow(ctx, `SELECT until, to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
		FROM date_bin($1::interval, now() + $1::interval + $2::interval, '2000-01-01T00:00:00Z') AS until`, width, first).Scan(&done.Until, &bound)
	if err != nil {
		return done, fmt.Errorf("choosing the end of the first partition: %w", err)
	}
	done.First = "outbox_until_" + done.Until.UTC().Format("20060102_150405")
	if err := inTurns(ctx, conn, fmt.Sprintf(prepare, bound, done.Until.UTC().Add(width).Format(time.RFC3339))); err != nil {
		return done, fmt.Errorf("preparing: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, inTurns(context.WithoutCancel(ctx), conn, unprepare))
		}
	}()
	if _, err := conn.Exec(ctx, "ALTER TABLE public.outbox VALIDATE CONSTRAINT outbox_partition_check"); err != nil {
		return done, fmt.Errorf("checking that every row is before %s: %w", bound, err)
	}
	// The functions come in the same transaction. Without them nothing attaches the next partitions, and then inserts fail.
	if err := inTurns(ctx, conn, partitionFunctions+fmt.Sprintf(attach, done.First, bound)); err != nil {
		return done, fmt.Errorf("making the table a partition: %w", err)
	}
	return done, nil
}

// inTurns runs statements in one transaction, which is tried again while others hold a lock that it needs.
func inTurns(ctx context.Context, conn *pgx.Conn, statements string) error {
	for try := 1; ; try++ {
		// One message: the transaction must not stay open while it travels.
		_, err := conn.Exec(ctx, "BEGIN; SET LOCAL lock_timeout = '"+partitionLock+"';\n"+statements+"\nCOMMIT", pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			return nil
		}
		if _, rollbackErr := conn.Exec(context.WithoutCancel(ctx), "ROLLBACK"); rollbackErr != nil {
			return errors.Join(err, rollbackErr)
		}
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55P03" { // lock_not_available
			return err
		}
		if try == lockTries {
			return fmt.Errorf("%w: a transaction has kept its lock on table outbox through %d tries: wait for it or end it "+
				"(SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start)", err, try)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

// removeLeftovers takes back what a killed Partition has prepared. Its CHECK would refuse every insert from the end of the first partition on.
// The swap is one transaction and leaves nothing. While somebody has the lock of migrations, that may be a Partition at work.
func removeLeftovers(ctx context.Context, conn *pgx.Conn) (err error) {
	const look = `SELECT EXISTS (
		SELECT FROM pg_catalog.pg_constraint WHERE conrelid = pg_catalog.to_regclass('public.outbox') AND conname = 'outbox_partition_check')`
	var left, locked bool
	err = conn.QueryRow(ctx, look).Scan(&left)
	if err == nil && left {
		err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lock.DefaultLockID).Scan(&locked)
	}
	if err == nil && locked {
		err = inTurns(ctx, conn, unprepare)
		_, unlockErr := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lock.DefaultLockID)
		err = errors.Join(err, unlockErr)
	}
	if err != nil {
		return fmt.Errorf("removing what a killed partitioning of outbox left: %w", err)
	}
	return nil
}

// unprepare takes prepare back.
const unprepare = `
DROP TABLE IF EXISTS public.outbox_partitioned;
ALTER TABLE public.outbox DROP CONSTRAINT IF EXISTS outbox_partition_check;`

// prepare makes the partitioned table beside outbox, with the rights of outbox and one partition, which tells outbox_partitions_attach how
// wide partitions are. The partitioned table has no key of its own. It would have to contain created_at, and so would refuse nothing.
// Each partition has the keys of the table as it was. Parameters: the end of the first partition, and that of the second.
const prepare = unprepare + `
DO $$
DECLARE
    until timestamptz := '%[1]s';
    part name := 'outbox_' || to_char(until AT TIME ZONE 'UTC', 'YYYYMMDD_HH24MISS');
    granted record;
BEGIN
    CREATE TABLE public.outbox_partitioned (LIKE public.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS INCLUDING STORAGE)
        PARTITION BY RANGE (created_at);
    EXECUTE format('COMMENT ON TABLE public.outbox_partitioned IS %%L', obj_description('public.outbox'::regclass));
    EXECUTE format('CREATE TABLE public.%%I (LIKE public.outbox INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE public.outbox_partitioned ATTACH PARTITION public.%%I FOR VALUES FROM (%%L) TO (%%L)', part, until, '%[2]s');
    EXECUTE format('ALTER TABLE public.outbox_partitioned OWNER TO %%I', (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'public.outbox'::regclass));
    FOR granted IN
        SELECT privilege_type, '' AS columns, grantee, is_grantable FROM pg_class, aclexplode(relacl)
        WHERE oid = 'public.outbox'::regclass AND grantee <> relowner
        UNION ALL
        SELECT privilege_type, format('(%%I)', attname), grantee, is_grantable FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = 'public.outbox'::regclass
    LOOP
        EXECUTE format('GRANT %%s %%s ON public.outbox_partitioned TO %%s %%s', granted.privilege_type, granted.columns,
            CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END,
            CASE WHEN granted.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    ALTER TABLE public.outbox ADD CONSTRAINT outbox_partition_check CHECK (created_at < '%[1]s') NOT VALID;
END $$;`

// attach swaps the tables. Rights on a partition would bypass the rights on the table, so the partition has none. Triggers move to the
// partitioned table. The identity is that of the query PublicationLook, which finds it in the comment. Parameters: the first
// partition's name and its end.
const attach = `
LOCK TABLE public.outbox IN ACCESS EXCLUSIVE MODE;
DO $$
DECLARE
    was oid := 'public.outbox'::regclass;
    replaced text;
    triggers text[];
    definition text;
    grantee oid;
    one record;
BEGIN
    SELECT concat_ws(' ', member.prrelid, publication.oid, publication.xmin, member.oid, member.xmin) INTO STRICT replaced
    FROM pg_publication AS publication JOIN pg_publication_rel AS member ON member.prpubid = publication.oid
    WHERE publication.pubname = 'outbox_publication' AND member.prrelid = was;

    SELECT array_agg(pg_get_triggerdef(oid)) INTO triggers FROM pg_trigger WHERE tgrelid = was AND NOT tgisinternal;
    FOR one IN SELECT tgname FROM pg_trigger WHERE tgrelid = was AND NOT tgisinternal LOOP
        EXECUTE format('DROP TRIGGER %%I ON public.outbox', one.tgname);
    END LOOP;
    FOR grantee IN SELECT DISTINCT acl.grantee FROM pg_class, aclexplode(relacl) AS acl WHERE oid = was AND acl.grantee <> relowner
        UNION SELECT acl.grantee FROM pg_attribute, aclexplode(attacl) AS acl WHERE attrelid = was
    LOOP
        EXECUTE format('REVOKE ALL ON public.outbox FROM %%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END);
    END LOOP;
    ALTER TABLE public.outbox RENAME TO %[1]s;
    ALTER TABLE public.outbox_partitioned RENAME TO outbox;
    ALTER TABLE public.outbox ATTACH PARTITION public.%[1]s FOR VALUES FROM (MINVALUE) TO ('%[2]s');
    ALTER TABLE public.%[1]s DROP CONSTRAINT outbox_partition_check;
    FOREACH definition IN ARRAY coalesce(triggers, '{}') LOOP
        EXECUTE definition;
    END LOOP;
    ALTER PUBLICATION outbox_publication SET (publish_via_partition_root = true);
    ALTER PUBLICATION outbox_publication SET TABLE public.outbox;
    EXECUTE format('COMMENT ON PUBLICATION outbox_publication IS %%L', 'Partitioned from ' || replaced);
END $$;`
