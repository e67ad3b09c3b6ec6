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
-- Makes a permanent slot at the position of a temporary one. The temporary one's session must still be there.
SELECT pg_copy_logical_replication_slot(@source::name, @slot::name, false, 'pgoutput');

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
