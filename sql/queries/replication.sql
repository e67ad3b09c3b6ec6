-- name: LoadLock :one
-- Takes the session's advisory lock on loading for a slot; false when another relay has it. It goes with the session.
SELECT pg_try_advisory_lock(hashtextextended('walrelay load ' || @slot::text, 0));

-- name: LoadWithoutTimeout :exec
-- Lifts transaction_timeout for this session where the server has it (17 and later): as a startup parameter, older ones refuse it.
SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout';

-- name: PublicationInserts :one
-- Whether the publication exists and publishes every insert into public.outbox: a row filter would drop events silently.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_publication AS p
    JOIN pg_catalog.pg_publication_tables AS t ON t.pubname = p.pubname
    WHERE p.pubname = @publication::name
        AND p.pubinsert
        AND t.schemaname = 'public'
        AND t.tablename = 'outbox'
        AND t.rowfilter IS NULL
);

-- name: SlotCopy :exec
-- Makes a slot at the position of another. A temporary source's session must still be there; a temporary copy goes with this one.
SELECT pg_copy_logical_replication_slot(@source::name, @slot::name, @temporary::boolean, 'pgoutput');

-- name: SlotDrop :exec
SELECT pg_drop_replication_slot(@slot::name);

-- name: SlotGet :one
-- What decides whether a slot can be streamed from; pgx.ErrNoRows when there is none.
SELECT
    coalesce(plugin::text, '')::text AS plugin,
    coalesce(database::text, '')::text AS database,
    coalesce(wal_status, '')::text AS wal_status,
    coalesce(active, false)::boolean AS active
FROM pg_catalog.pg_replication_slots
WHERE slot_name = @slot::name;

-- name: SettingGet :one
-- A server setting in its base unit, such as milliseconds.
SELECT coalesce(setting, '')::text AS setting FROM pg_catalog.pg_settings WHERE name = @name::text;
