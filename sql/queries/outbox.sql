-- name: OutboxCount :one
-- How many rows there are. It counts created_at, because count(*) may count the entries of outbox_pkey, and OutboxPage reads by that
-- index. What the index lacks would then be missing from both.
SELECT count(created_at) FROM outbox;

-- name: OutboxInsert :exec
-- Appends one event. Callers use package outbox, which validates first. The caller's session is its
-- own, so the table is named in full. Only public.outbox is published.
INSERT INTO public.outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent)
VALUES (@id, @aggregate_type, @aggregate_id, @aggregate_version, @event_type, @event_data, sqlc.narg('traceparent'));

-- name: OutboxMisplaced :one
-- How many rows outbox_pkey has after a row with a greater key. There are some when the server no longer compares text as it did when the
-- rows were written, after another version of the operating system's library or of ICU. OutboxPage would then leave rows out, and return
-- versions of an aggregate in the wrong order. Only with enable_sort off does it say anything, because a sorted answer is always in order.
SELECT count(*)
FROM (
    SELECT
        (aggregate_type, aggregate_id, aggregate_version)
        < (lag(aggregate_type) OVER by_key, lag(aggregate_id) OVER by_key, lag(aggregate_version) OVER by_key) AS misplaced
    FROM public.outbox
    WINDOW by_key AS (ORDER BY aggregate_type, aggregate_id, aggregate_version)
) AS entries
WHERE misplaced;

-- name: OutboxPage :many
-- The next rows after the given key, in aggregate and version order, served by outbox_pkey. Start with two empty strings and 0. Read all
-- pages under one snapshot, because only then are they one consistent picture. A page has all rows of its last key. A broken writer can use
-- a version twice, in two partitions of outbox, and a page that ended between the two rows would leave the second one out.
SELECT * FROM public.outbox
WHERE (aggregate_type, aggregate_id, aggregate_version)
    > (@aggregate_type::varchar, @aggregate_id::varchar, @aggregate_version::bigint)
ORDER BY aggregate_type, aggregate_id, aggregate_version
FETCH FIRST (@max_rows) ROWS WITH TIES;
