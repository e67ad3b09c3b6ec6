-- name: LoadLock :one
-- Takes the session's advisory lock on loading for a slot. Returns false when another relay has it. The lock ends with the session.
SELECT pg_try_advisory_lock(hashtextextended('walrelay load ' || @slot::text, 0));

-- name: LoadUnlock :exec
-- Gives LoadLock back at once. A server notices the end of a session a moment after its client has ended.
SELECT pg_advisory_unlock(hashtextextended('walrelay load ' || @slot::text, 0));

-- name: LoadUnsettled :one
-- A session or a prepared transaction (pid 0) whose commit the snapshot of this transaction sees, although it is still in progress for
-- everybody else. pgx.ErrNoRows when there is none. A transaction keeps the lock on its id until it has ended in every respect. Every user
-- sees these locks. An xid is 32 bits wide. The right 64-bit value lies within 2^31 of the snapshot's xmax.
SELECT
    coalesce(held.pid, 0)::integer AS pid,
    coalesce(activity.application_name, '')::text AS application_name,
    coalesce(prepared.gid, '')::text AS gid
FROM pg_catalog.pg_locks AS held
CROSS JOIN (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid) AS snapshot
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = held.pid
LEFT JOIN pg_catalog.pg_prepared_xacts AS prepared ON prepared.transaction = held.transactionid
WHERE held.locktype = 'transactionid'
    AND held.mode = 'ExclusiveLock' -- the lock of its transaction, not of one that waits for its end
    AND pg_visible_in_snapshot(
        (next_xid + 2147483648 - (next_xid + 2147483648 - held.transactionid::text::bigint) % 4294967296)::text::xid8,
        pg_current_snapshot()
    )
LIMIT 1;

-- name: LoadSession :exec
-- Settings of the loader's session, in milliseconds. The server ends the session when the loader
-- has sent nothing for that long. A frozen loader still answers TCP. tcp_user_timeout does the same
-- while the server has something to send. With client_connection_check_interval the server notices
-- a loader that is gone while the slot waits for transactions. Only Linux is sure to have that.
-- Without enable_sort each page of a partitioned outbox comes from the indexes of the partitions.
-- Otherwise the server, which expects few rows after the key, reads all of them and sorts them for
-- each page.
SELECT set_config(name, value, false)
FROM (
    VALUES
    ('idle_in_transaction_session_timeout', @lease::text),
    ('idle_session_timeout', @lease::text),
    ('tcp_user_timeout', @lease::text),
    ('enable_sort', 'off'),
    ('client_connection_check_interval', CASE WHEN version() LIKE '%linux%' THEN '1000' ELSE '0' END)
) AS wanted (name, value);

-- name: MarkWAL :exec
-- Writes a message for readers of the slot into the WAL. It is transactional, because only a commit is flushed on every version.
SELECT pg_logical_emit_message(true, @prefix::text, @slot::text);

-- name: PublicationLook :one
-- The facts that decide whether every insert into public.outbox is published. Package outbox judges
-- them. The query reads only catalogs, so a lock on outbox does not hold it up. It uses to_jsonb
-- because PostgreSQL 14 has no row filters and no column lists.
--
-- changing reports whether an open transaction has changed one of these catalog rows. Its commit
-- record may already be in the WAL while this statement still sees the old rows. An xid is 32 bits
-- wide. The right 64-bit value lies within 2^31 of the next one.
--
-- replaced is the identity that migrate.Partition has replaced. Only its transaction has written the
-- comment, the publication and the member. Any later change of one of the last two has another xmin.
WITH facts AS (
    SELECT
        class.oid AS table_oid,
        class.relkind,
        (
            class.relpersistence = 'p'
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_inherits AS inherits
                JOIN pg_catalog.pg_class AS child ON child.oid = inherits.inhrelid
                WHERE inherits.inhparent = class.oid AND (child.relpersistence <> 'p' OR child.relkind = 'f')
            )
        ) AS logged,
        class.relispartition,
        (class.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS inherits WHERE inherits.inhparent = class.oid)) AS inherited,
        publication.oid AS publication_oid,
        publication.pubinsert,
        publication.pubviaroot,
        publication.puballtables,
        member.oid AS member_oid,
        to_jsonb(member) ->> 'prqual' AS row_filter,
        to_jsonb(member) ->> 'prattrs' AS column_list,
        publication.xmin AS publication_xmin,
        member.xmin AS member_xmin,
        ARRAY[schema.xmax, class.xmax, publication.xmax, member.xmax] AS changed_by,
        pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid
    FROM (VALUES (@publication::name)) AS wanted (name)
    LEFT JOIN pg_catalog.pg_namespace AS schema ON schema.nspname = 'public'
    LEFT JOIN pg_catalog.pg_class AS class
        ON class.relnamespace = schema.oid AND class.relname = 'outbox' AND class.relkind IN ('r', 'p')
    LEFT JOIN pg_catalog.pg_publication AS publication ON publication.pubname = wanted.name
    LEFT JOIN pg_catalog.pg_publication_rel AS member ON member.prpubid = publication.oid AND member.prrelid = class.oid
),
changes AS (
    SELECT next_xid, next_xid + 2147483648 - (next_xid + 2147483648 - xid::text::bigint) % 4294967296 AS xid
    FROM facts, unnest(changed_by) AS xid
    WHERE xid::text <> '0'
)
SELECT
    coalesce(table_oid, 0)::bigint AS relation_id,
    coalesce(relkind = 'p', false)::boolean AS partitioned,
    coalesce(logged, false)::boolean AS logged,
    coalesce(relispartition, false)::boolean AS is_partition,
    coalesce(inherited, false)::boolean AS inherited,
    (publication_oid IS NOT NULL)::boolean AS published,
    coalesce(pubinsert, false)::boolean AS inserts,
    coalesce(pubviaroot, false)::boolean AS via_root,
    (coalesce(puballtables, false) OR member_oid IS NOT NULL)::boolean AS member,
    (row_filter IS NOT NULL)::boolean AS filtered,
    (column_list IS NOT NULL)::boolean AS column_list,
    concat_ws(' ', table_oid, publication_oid, publication_xmin, member_oid, member_xmin)::text AS identity,
    coalesce((
        SELECT substring(comment.description FROM '^Partitioned from (.*)$')
        FROM pg_catalog.pg_description AS comment
        WHERE comment.objoid = publication_oid
            AND comment.classoid = 'pg_catalog.pg_publication'::regclass
            AND comment.objsubid = 0
            AND comment.xmin = publication_xmin
            AND comment.xmin = member_xmin
    ), '')::text AS replaced,
    EXISTS (
        SELECT FROM changes
        -- A CASE keeps the order, because pg_xact_status refuses an xid that is not there yet.
        -- A transaction that this statement's snapshot does not see counts as open, even if it has ended since.
        WHERE CASE
            WHEN xid >= next_xid THEN true
            WHEN xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint THEN false
            ELSE pg_xact_status(xid::text::xid8) <> 'aborted'
        END
    )::boolean AS changing
FROM facts;

-- name: SessionBlocker :one
-- The session or the prepared transaction (pid 0) that a session waits for. pgx.ErrNoRows when it
-- waits for no lock. Every user sees all of this. gid is empty unless the lock is on the end of a
-- transaction.
SELECT
    blocker.pid::integer AS pid,
    coalesce(activity.application_name, '')::text AS application_name,
    coalesce(prepared.gid, '')::text AS gid
FROM unnest(pg_blocking_pids(@pid::integer)) AS blocker (pid)
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = blocker.pid
LEFT JOIN pg_catalog.pg_locks AS wanted ON blocker.pid = 0 AND wanted.pid = @pid::integer AND NOT wanted.granted
LEFT JOIN pg_catalog.pg_prepared_xacts AS prepared ON prepared.transaction = wanted.transactionid
ORDER BY blocker.pid
LIMIT 1;

-- name: SlotCopy :exec
-- Makes a slot at the position of another. The session of a temporary source must still be there. A temporary copy ends with this session.
SELECT pg_copy_logical_replication_slot(@source::name, @slot::name, @temporary::boolean, 'pgoutput');

-- name: PublicationSinceSlot :one
-- Whether the publication and its list of tables are certainly older than everything that the slot has not confirmed. Before the server
-- moves catalog_xmin on, the slot has confirmed a position at which every transaction with an older id had ended. So false may also
-- mean that this is not certain yet.
SELECT coalesce(bool_and(age(change.xmin) > age(slots.catalog_xmin)), false)::boolean AS unchanged
FROM pg_catalog.pg_replication_slots AS slots,
    LATERAL (
        SELECT publication.xmin
        FROM pg_catalog.pg_publication AS publication
        WHERE publication.pubname = @publication::name
        UNION ALL
        SELECT member.xmin
        FROM pg_catalog.pg_publication_rel AS member
        JOIN pg_catalog.pg_publication AS publication ON publication.oid = member.prpubid
        WHERE publication.pubname = @publication::name AND member.prrelid = 'public.outbox'::regclass
    ) AS change
WHERE slots.slot_name = @slot::name;

-- name: SlotsOfPlugin :many
-- The logical slots of this database that decode with a plugin. DMS gives its slot a name that nobody chose.
SELECT slot_name::text AS slot_name
FROM pg_catalog.pg_replication_slots
WHERE plugin = @plugin::name AND database = current_database()
ORDER BY slot_name;

-- name: SlotDrop :exec
SELECT pg_drop_replication_slot(@slot::name);

-- name: SlotGet :one
-- The facts that decide whether a slot can be streamed from. pgx.ErrNoRows when there is none. failover is true, false, or empty before
-- PostgreSQL 17, which brought failover slots.
SELECT
    coalesce(plugin::text, '')::text AS plugin,
    coalesce(database::text, '')::text AS database,
    coalesce(wal_status, '')::text AS wal_status,
    coalesce(active, false)::boolean AS active,
    coalesce(to_jsonb(slots) ->> 'failover', '')::text AS failover
FROM pg_catalog.pg_replication_slots AS slots
WHERE slot_name = @slot::name;

-- name: SlotPromotion :one
-- What this server knows of a slot's fate in a promotion. The slot's members are false when there is none. senders is the number of
-- standbys that stream without a physical slot, and 0 to a user without pg_read_all_stats.
SELECT
    (current_setting('server_version_num')::integer / 10000)::integer AS major,
    pg_is_in_recovery()::boolean AS standby,
    current_setting('wal_level')::text AS wal_level,
    (current_setting('hot_standby_feedback') = 'on')::boolean AS feedback,
    current_setting('primary_slot_name')::text AS primary_slot,
    coalesce(current_setting('sync_replication_slots', true) = 'on', false)::boolean AS syncs,
    (slots.slot_name IS NOT NULL)::boolean AS found,
    coalesce(slots.plugin::text, '')::text AS plugin,
    coalesce((to_jsonb(slots) ->> 'failover')::boolean, false)::boolean AS failover,
    coalesce((to_jsonb(slots) ->> 'synced')::boolean, false)::boolean AS synced,
    coalesce(slots.temporary, false)::boolean AS temporary,
    (coalesce(slots.wal_status, '') = 'lost')::boolean AS lost,
    (
        SELECT count(*) FROM pg_catalog.pg_stat_replication AS senders
        WHERE senders.state IN ('catchup', 'streaming')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS used WHERE used.active_pid = senders.pid)
    )::bigint AS senders
FROM (SELECT) AS one
LEFT JOIN pg_catalog.pg_replication_slots AS slots ON slots.slot_name = @slot::name;

-- name: StandbySlots :many
-- The physical slots, and what synchronized_standby_slots names. A name without a physical slot has found false. position is how far the
-- standby has flushed the WAL, and empty when that is unknown. A standby whose feedback holds back the catalog has logical slots of its
-- own, which synchronized ones are. Before PostgreSQL 17 nothing is named.
SELECT
    coalesce(slots.slot_name::text, wanted.name)::text AS name,
    (slots.slot_name IS NOT NULL)::boolean AS found,
    coalesce(slots.active, false)::boolean AS active,
    (wanted.name IS NOT NULL)::boolean AS named,
    (slots.catalog_xmin IS NOT NULL)::boolean AS holds_slots,
    coalesce(slots.restart_lsn::text, '')::text AS position
FROM (SELECT * FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical') AS slots
FULL JOIN (
    SELECT btrim(name, ' "') AS name
    FROM string_to_table(nullif(current_setting('synchronized_standby_slots', true), ''), ',') AS name
) AS wanted ON wanted.name = slots.slot_name::text
ORDER BY 1;

-- name: SlotUser :one
-- The process that uses a slot, 0 for none. A temporary slot is in use by its session. pgx.ErrNoRows when there is no slot.
SELECT coalesce(active_pid, 0)::integer AS pid FROM pg_catalog.pg_replication_slots WHERE slot_name = @slot::name;

-- name: SettingGet :one
-- A server setting in its base unit, such as milliseconds.
SELECT coalesce(setting, '')::text AS setting FROM pg_catalog.pg_settings WHERE name = @name::text;

-- name: WALInsertPosition :one
-- The end of the WAL, flushed or not. What commits after this statement stands after it.
SELECT pg_current_wal_insert_lsn()::text AS lsn;
