-- name: OutboxCount :one
SELECT count(*) FROM outbox;

-- name: OutboxInsert :exec
-- Appends one event. Callers use package outbox, which validates first. The caller's session is its
-- own, so the table is named in full. Only public.outbox is published.
INSERT INTO public.outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent)
VALUES (@id, @aggregate_type, @aggregate_id, @aggregate_version, @event_type, @event_data, sqlc.narg('traceparent'));

-- name: OutboxPage :many
-- The next rows after the given key, in aggregate and version order, served by outbox_pkey. Start with two empty strings and 0. Read all
-- pages under one snapshot, because only then are they one consistent picture. A page has all rows of its last key. A broken writer can use
-- a version twice, in two partitions of outbox, and a page that ended between the two rows would leave the second one out.
SELECT * FROM public.outbox
WHERE (aggregate_type, aggregate_id, aggregate_version)
    > (@aggregate_type::varchar, @aggregate_id::varchar, @aggregate_version::bigint)
ORDER BY aggregate_type, aggregate_id, aggregate_version
FETCH FIRST (@max_rows) ROWS WITH TIES;
