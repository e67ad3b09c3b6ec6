-- name: HeldBy :many
-- The subscribers of this database that hold the event until an earlier version of its aggregate comes, with the version that they wait
-- for. No index serves it, so it reads the whole table, which is as long as the held events are many.
SELECT
    held.subscriber,
    held.held_at,
    (coalesce(seen.version, 0) + 1)::bigint AS waits_for
FROM inbox_held AS held
LEFT JOIN inbox_aggregate AS seen
    ON seen.subscriber = held.subscriber
        AND seen.aggregate_type = held.aggregate_type
        AND seen.aggregate_id = held.aggregate_id
WHERE held.event_id = @event_id
ORDER BY held.subscriber;

-- name: OpsLock :one
-- Takes the session's advisory lock on sending events again. Returns false when another session of this database has it. Two sessions that
-- send at once could interleave the versions of an aggregate. The lock ends with the session, or with
-- OpsUnlock.
SELECT pg_try_advisory_lock(hashtextextended('outboxctl sends again', 0));

-- name: OpsLockHolder :one
-- The pid, application_name and start of the session that has OpsLock. pgx.ErrNoRows when none has. A user without
-- pg_read_all_stats sees only the pid of another user's session.
WITH lock_key AS (
    SELECT hashtextextended('outboxctl sends again', 0) AS key
)
SELECT
    coalesce(activity.pid, 0)::integer AS pid,
    coalesce(activity.application_name, '')::text AS application_name,
    coalesce(activity.backend_start, 'epoch')::timestamptz AS since
FROM pg_catalog.pg_locks AS locks
CROSS JOIN lock_key
JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = locks.pid
WHERE locks.locktype = 'advisory'
    AND locks.granted
    AND locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    -- A bigint key is kept in two halves, objsubid 1 says so.
    AND locks.classid::bigint = (lock_key.key >> 32) & 4294967295
    AND locks.objid::bigint = lock_key.key & 4294967295
    AND locks.objsubid = 1;

-- name: OpsName :exec
-- Names this session in pg_stat_activity, for OpsLockHolder.
SELECT set_config('application_name', @name::text, false);

-- name: OpsUnlock :exec
-- Gives OpsLock back at once. A server notices the end of a session a moment after its client has ended.
SELECT pg_advisory_unlock(hashtextextended('outboxctl sends again', 0));

-- name: OutboxByAggregate :many
-- Ids of the events of the aggregates with this id, whatever their type. No index serves it, so it reads the whole table.
SELECT id FROM outbox
WHERE aggregate_id = @aggregate_id
ORDER BY aggregate_type, aggregate_version
LIMIT @max_rows;

-- name: OutboxByTrace :many
-- Ids of the events of one trace, 32 hex digits. No index serves it, so it reads the whole table.
SELECT id FROM outbox
WHERE substr(traceparent, 4, 32) = @trace_id::text
ORDER BY created_at, aggregate_version
LIMIT @max_rows;

-- name: OutboxGet :one
-- One event by its id, served by outbox_id_key. pgx.ErrNoRows when it is not there, or is purged.
SELECT * FROM outbox WHERE id = @id;

-- name: OutboxNewest :many
-- The newest version in the table of each aggregate (the two arrays side by side), those events left out. Served by outbox_pkey.
SELECT
    outbox.aggregate_type,
    outbox.aggregate_id,
    max(outbox.aggregate_version)::bigint AS newest
FROM outbox
WHERE (outbox.aggregate_type, outbox.aggregate_id) IN (
        SELECT unnest(@aggregate_types::varchar[]), unnest(@aggregate_ids::varchar[])
    )
    AND NOT outbox.id = ANY (@except_ids::uuid[])
GROUP BY outbox.aggregate_type, outbox.aggregate_id;

-- name: ReplayCount :one
-- How many events and aggregates a replay would send. An empty argument selects everything. The oldest and newest are meaningless when
-- there are none.
SELECT
    count(*) AS events,
    count(DISTINCT (aggregate_type, aggregate_id)) AS aggregates,
    coalesce(min(created_at), 'epoch')::timestamptz AS oldest,
    coalesce(max(created_at), 'epoch')::timestamptz AS newest
FROM outbox
WHERE (coalesce(cardinality(@ids::uuid[]), 0) = 0 OR id = ANY (@ids::uuid[]))
    AND (@aggregate_type::varchar = '' OR aggregate_type = @aggregate_type::varchar)
    AND (@aggregate_id::varchar = '' OR aggregate_id = @aggregate_id::varchar)
    AND (@event_type::varchar = '' OR event_type = @event_type::varchar)
    AND aggregate_version >= @from_version::bigint
    AND (@to_version::bigint = 0 OR aggregate_version <= @to_version::bigint)
    AND created_at >= @created_from::timestamptz
    AND created_at < @created_to::timestamptz;

-- name: ReplayMissing :many
-- Those of the ids that have no row.
SELECT wanted.id::uuid
FROM unnest(@ids::uuid[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.id = wanted.id);

-- name: ReplayPage :many
-- The next events of a replay behind the given key, in aggregate and version order. Start with two empty strings and 0. misplaced reports
-- whether a row is before its predecessor, or the first row not after the given key. OutboxMisplaced says when that happens.
SELECT
    sqlc.embed(outbox),
    coalesce(
        (aggregate_type, aggregate_id, aggregate_version)
        < (lag(aggregate_type) OVER by_key, lag(aggregate_id) OVER by_key, lag(aggregate_version) OVER by_key),
        (aggregate_type, aggregate_id, aggregate_version) <= (@after_type::varchar, @after_id::varchar, @after_version::bigint)
    )::boolean AS misplaced
FROM (
    SELECT * FROM public.outbox
    WHERE (aggregate_type, aggregate_id, aggregate_version)
        > (@after_type::varchar, @after_id::varchar, @after_version::bigint)
        AND (coalesce(cardinality(@ids::uuid[]), 0) = 0 OR id = ANY (@ids::uuid[]))
        AND (@aggregate_type::varchar = '' OR aggregate_type = @aggregate_type::varchar)
        AND (@aggregate_id::varchar = '' OR aggregate_id = @aggregate_id::varchar)
        AND (@event_type::varchar = '' OR event_type = @event_type::varchar)
        AND aggregate_version >= @from_version::bigint
        AND (@to_version::bigint = 0 OR aggregate_version <= @to_version::bigint)
        AND created_at >= @created_from::timestamptz
        AND created_at < @created_to::timestamptz
    ORDER BY aggregate_type, aggregate_id, aggregate_version
    LIMIT @max_rows
) AS outbox
WINDOW by_key AS (ORDER BY aggregate_type, aggregate_id, aggregate_version)
ORDER BY aggregate_type, aggregate_id, aggregate_version;

-- name: ServerClock :one
-- The server's clock now, not the transaction's.
SELECT clock_timestamp()::timestamptz AS now;

-- name: SlotHealth :one
-- What a slot holds back and how much more it may, in bytes. pgx.ErrNoRows when there is no slot.
-- safe_wal_size is -1 when there is no limit, or when the slot is lost already. invalidation_reason
-- is why a slot is lost. inactive_since is since when nobody reads it, as text in UTC. Both are
-- empty before PostgreSQL 17. looked_at is the server's time.
SELECT
    clock_timestamp()::timestamptz AS looked_at,
    coalesce(plugin::text, '')::text AS plugin,
    coalesce(database::text, '')::text AS database,
    coalesce(active, false)::boolean AS active,
    coalesce(wal_status, '')::text AS wal_status,
    coalesce(restart_lsn, '0/0')::text AS restart_lsn,
    coalesce(confirmed_flush_lsn::text, '')::text AS confirmed_lsn,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint AS retained,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint AS unconfirmed,
    coalesce(safe_wal_size, -1)::bigint AS safe_wal_size,
    coalesce(to_jsonb(slots) ->> 'invalidation_reason', '')::text AS invalidation_reason,
    coalesce(to_jsonb(slots) ->> 'inactive_since', '')::text AS inactive_since
FROM pg_catalog.pg_replication_slots AS slots
WHERE slot_name = @slot::name;

-- name: SlotList :many
-- The logical slots of this database. A slot is usable while all of the WAL that it has not confirmed is there, so reading goes on
-- where it ended.
SELECT
    slot_name::text AS name,
    plugin::text AS plugin,
    coalesce(active, false)::boolean AS active,
    coalesce(wal_status, '')::text AS wal_status,
    coalesce(
        wal_status IN ('reserved', 'extended', 'unreserved') AND to_jsonb(slots) ->> 'invalidation_reason' IS NULL,
        false
    )::boolean AS usable
FROM pg_catalog.pg_replication_slots AS slots
WHERE database = current_database()
    AND NOT temporary
ORDER BY slot_name;

-- name: SlotsOther :many
-- The other slots that rows of this database can be read through. A physical slot has no database, and its reader gets the whole server.
-- Left out are the temporary slots of a load, which walrelay names after its own, and the slots of standbys that
-- synchronized_standby_slots names.
SELECT
    slot_name::text AS name,
    coalesce(plugin::text, '')::text AS plugin,
    coalesce(active, false)::boolean AS active
FROM pg_catalog.pg_replication_slots
WHERE slot_name <> @slot::name
    AND (database = current_database() OR database IS NULL)
    AND NOT (temporary AND starts_with(slot_name::text, left(@slot::text, 40) || '_load_'))
    AND NOT (slot_type = 'physical' AND slot_name::text IN (
        SELECT btrim(standby, ' "') FROM string_to_table(current_setting('synchronized_standby_slots', true), ',') AS standby
    ))
ORDER BY slot_name;

-- name: TransactionOldest :one
-- The oldest transaction that has written something and is still open, or prepared (pid 0). No slot of the server can let go of the WAL
-- from that transaction's start on. pgx.ErrNoRows when there is none.
SELECT
    pid::integer AS pid,
    application_name::text AS application_name,
    age::bigint AS seconds
FROM (
    SELECT
        activity.pid,
        activity.application_name,
        extract(epoch FROM clock_timestamp() - activity.xact_start) AS age
    FROM pg_catalog.pg_stat_activity AS activity
    WHERE activity.backend_xid IS NOT NULL AND activity.xact_start IS NOT NULL
    UNION ALL
    SELECT 0, prepared.gid, extract(epoch FROM clock_timestamp() - prepared.prepared)
    FROM pg_catalog.pg_prepared_xacts AS prepared
) AS open
ORDER BY age DESC
LIMIT 1;

-- name: TransactionsVisible :one
-- Reports whether this user sees the transactions of others. Without that right TransactionOldest knows only its own.
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE');

-- name: SchemaCreators :many
-- The roles that may create tables, functions and operators in schema public, other than the owners of the schema and of table outbox.
-- A superuser and the members of these roles are not listed.
SELECT coalesce(role.rolname, 'PUBLIC')::text AS name
FROM pg_catalog.pg_namespace AS schema
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(schema.nspacl, pg_catalog.acldefault('n', schema.nspowner))) AS granted
LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = granted.grantee
WHERE schema.nspname = 'public'
    AND granted.privilege_type = 'CREATE'
    AND granted.grantee <> schema.nspowner
    AND granted.grantee NOT IN (
        SELECT class.relowner FROM pg_catalog.pg_class AS class
        WHERE class.relnamespace = schema.oid AND class.relname = 'outbox'
    )
ORDER BY name;
