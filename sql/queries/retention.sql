-- name: PartitionsHealth :one
-- How far the partitions of outbox reach, and what a killed migrate.Partition has left. ahead counts the partitions that begin in the
-- future. open_ended names the partitions without an upper bound, or is empty. until is the end of the last one, in UTC, and used_up
-- reports whether it has passed. leftover is the CHECK that refuses later rows, or empty. migrating reports whether a migration is at
-- work. The lock is goose's.
SELECT
    coalesce(outbox.relkind = 'p', false)::boolean AS partitioned,
    (to_regprocedure('public.outbox_partitions_attach()') IS NOT NULL)::boolean AS tended,
    coalesce((
        SELECT pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
        WHERE conrelid = outbox.oid AND conname = 'outbox_partition_check'
    ), '')::text AS leftover,
    EXISTS (
        SELECT FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND (classid::bigint << 32 | objid::bigint) = @migration_lock::bigint
    )::boolean AS migrating,
    parts.ahead::bigint AS ahead,
    coalesce(parts.open_ended, '')::text AS open_ended,
    coalesce(to_char(parts.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), '')::text AS until,
    coalesce(parts.until <= now(), true)::boolean AS used_up
FROM (VALUES (to_regclass('public.outbox'))) AS named (id)
LEFT JOIN pg_catalog.pg_class AS outbox ON outbox.oid = named.id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE bounds.lower > now()) AS ahead,
        string_agg(part.relname, ', ') FILTER (WHERE bounds.upper IS NULL) AS open_ended,
        max(bounds.upper) AS until
    FROM pg_catalog.pg_inherits
    JOIN pg_catalog.pg_class AS part ON part.oid = inhrelid
    CROSS JOIN LATERAL (
        SELECT
            substring(pg_get_expr(part.relpartbound, part.oid) FROM $re$FROM \('([^']+)'\)$re$)::timestamptz AS lower,
            nullif(substring(pg_get_expr(part.relpartbound, part.oid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz, 'infinity') AS upper
    ) AS bounds
    WHERE inhparent = outbox.oid
) AS parts;

-- name: RetentionCount :one
-- How many rows are older than so many hours. It reads the index entry of each.
SELECT count(*) FROM outbox WHERE created_at < now() - make_interval(hours => @hours::int);

-- name: RetentionDelete :execrows
-- Deletes rows if the slot is good and has confirmed the LSN at this moment, and no rows otherwise. The check is part of the statement,
-- because an earlier look could be outdated.
DELETE FROM outbox
WHERE id = ANY (@ids::uuid[])
    AND EXISTS (
        SELECT FROM pg_catalog.pg_replication_slots
        WHERE slot_name = @slot::name
            AND database = current_database()
            AND NOT temporary
            AND wal_status IN ('reserved', 'extended')
            AND confirmed_flush_lsn >= (@lsn::text)::pg_lsn
    );

-- name: RetentionDue :many
-- Ids of the oldest rows that are older than so many hours by the database's clock, served by outbox_created_at_idx. The order keeps
-- two runs at once from locking each other out.
SELECT id FROM outbox
WHERE created_at < now() - make_interval(hours => @hours::int)
ORDER BY created_at, id
LIMIT @max_rows;

-- name: RetentionOldest :one
-- When the oldest row was written. pgx.ErrNoRows when there is none.
SELECT created_at FROM outbox ORDER BY created_at LIMIT 1;

-- name: RetentionPartitioned :one
-- Whether outbox is partitioned. False without the table.
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass('public.outbox') AND relkind = 'p');

-- name: RetentionPosition :one
-- The end of the WAL, flushed or not. Every row that an earlier statement of this session saw was committed before it. The statement's
-- own transaction gets an id, and so writes a commit into the WAL after that position. On an idle server the end of the WAL may be after the
-- header of a new segment, and nothing else would make a slot reach it. No decoding plugin sees a commit without changes.
SELECT pg_current_wal_insert_lsn()::text AS lsn, pg_current_xact_id()::text AS xid;

-- name: RetentionSlot :one
-- Whether the slot is good and has confirmed the LSN, as RetentionDelete asks, and what explains it if not. pgx.ErrNoRows when there is
-- no such slot.
SELECT
    slot.good::boolean AS good,
    (slot.good AND coalesce(confirmed_flush_lsn >= (@lsn::text)::pg_lsn, false))::boolean AS passed,
    coalesce(plugin::text, '')::text AS plugin,
    coalesce(database::text, '')::text AS database,
    current_database()::text AS this_database,
    temporary::boolean AS temporary,
    coalesce(wal_status, '')::text AS wal_status,
    coalesce(active, false)::boolean AS active,
    coalesce(confirmed_flush_lsn::text, 'nothing')::text AS confirmed
FROM (
    SELECT
        *,
        coalesce(database = current_database() AND NOT temporary AND wal_status IN ('reserved', 'extended'), false) AS good
    FROM pg_catalog.pg_replication_slots
) AS slot
WHERE slot_name = @slot::name;

-- name: TableLook :one
-- The facts of table public.outbox that matter to a relay which finds the table by its name in the
-- WAL (DMS). Package outbox judges them. The query reads only catalogs, so a lock on outbox does
-- not hold it up.
SELECT
    (class.oid IS NOT NULL)::boolean AS present,
    coalesce(class.relkind = 'p', false)::boolean AS partitioned,
    coalesce(class.relpersistence = 'p', false)::boolean AS logged,
    coalesce(key_column.atttypid = 'varchar'::regtype, false)::boolean AS short_key,
    coalesce(
        class.relreplident = 'f' OR EXISTS (
            SELECT FROM pg_catalog.pg_index AS identity
            WHERE identity.indrelid = class.oid
                AND identity.indisvalid
                AND CASE class.relreplident WHEN 'd' THEN identity.indisprimary WHEN 'i' THEN identity.indisreplident ELSE false END
                AND key_column.attnum = ANY (identity.indkey::smallint[])
        ),
        false
    )::boolean AS deletes_have_key
FROM pg_catalog.pg_namespace AS schema
LEFT JOIN pg_catalog.pg_class AS class
    ON class.relnamespace = schema.oid AND class.relname = 'outbox' AND class.relkind IN ('r', 'p')
LEFT JOIN pg_catalog.pg_attribute AS key_column
    ON key_column.attrelid = class.oid AND key_column.attname = 'aggregate_id' AND NOT key_column.attisdropped
WHERE schema.nspname = 'public';
