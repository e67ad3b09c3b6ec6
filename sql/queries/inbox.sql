-- name: InboxAggregateLock :one
-- The highest version of the aggregate that the subscriber has processed, 0 for none, under a row lock that is held until the
-- transaction ends. The statement makes the row if there is none, so that two first events at once wait for each other, too. The update
-- changes nothing and takes the lock.
INSERT INTO inbox_aggregate (subscriber, aggregate_type, aggregate_id, version)
VALUES (@subscriber, @aggregate_type, @aggregate_id, 0)
ON CONFLICT ON CONSTRAINT inbox_aggregate_pkey DO UPDATE SET version = inbox_aggregate.version
RETURNING version;

-- name: InboxForget :execrows
-- Deletes the oldest ids of the subscriber that were processed more than so many seconds ago, served by inbox_processed_at_idx.
DELETE FROM inbox
WHERE inbox.subscriber = @subscriber
    AND inbox.event_id IN (
        SELECT oldest.event_id FROM inbox AS oldest
        WHERE oldest.subscriber = @subscriber AND oldest.processed_at < now() - make_interval(secs => @seconds::float8)
        ORDER BY oldest.processed_at
        LIMIT @max_rows
    );

-- name: InboxKnown :one
-- Reports whether the subscriber has processed the event. It is a statement of its own after InboxAggregateLock, because a statement that
-- waits for the lock still sees the state from before the wait.
SELECT EXISTS (SELECT FROM inbox WHERE subscriber = @subscriber AND event_id = @event_id);

-- name: InboxRecord :exec
-- Notes the event as processed. The caller holds the aggregate by InboxAggregateLock.
WITH recorded AS (
    INSERT INTO inbox (subscriber, event_id, aggregate_type, aggregate_id, aggregate_version)
    VALUES (@subscriber, @event_id, @aggregate_type, @aggregate_id, @aggregate_version)
)
UPDATE inbox_aggregate
SET version = greatest(inbox_aggregate.version, @aggregate_version)
WHERE inbox_aggregate.subscriber = @subscriber
    AND inbox_aggregate.aggregate_type = @aggregate_type
    AND inbox_aggregate.aggregate_id = @aggregate_id;

-- name: InboxNote :exec
-- Notes the event as processed, and leaves the aggregate's version to InboxAdvance. Many versions in one transaction must not update that
-- row for each event, because every update walks over all row versions that the transaction has left behind.
INSERT INTO inbox (subscriber, event_id, aggregate_type, aggregate_id, aggregate_version)
VALUES (@subscriber, @event_id, @aggregate_type, @aggregate_id, @aggregate_version);

-- name: InboxAdvance :exec
-- Moves the aggregate to the version, and removes its held events up to it. The caller holds the aggregate by InboxAggregateLock.
WITH applied AS (
    DELETE FROM inbox_held AS held
    WHERE held.subscriber = @subscriber
        AND held.aggregate_type = @aggregate_type
        AND held.aggregate_id = @aggregate_id
        AND held.aggregate_version <= @aggregate_version
)
UPDATE inbox_aggregate
SET version = @aggregate_version
WHERE inbox_aggregate.subscriber = @subscriber
    AND inbox_aggregate.aggregate_type = @aggregate_type
    AND inbox_aggregate.aggregate_id = @aggregate_id;

-- name: InboxHold :one
-- Holds the event, and returns the id of the event that is held in its place. That is another id only if a broken writer used the version
-- twice. The update changes nothing.
INSERT INTO inbox_held (
    subscriber, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_data, traceparent, replay, created_at
)
VALUES (
    @subscriber, @aggregate_type, @aggregate_id, @aggregate_version, @event_id, @event_type, @event_data, @traceparent, @replay, @created_at
)
ON CONFLICT ON CONSTRAINT inbox_held_pkey DO UPDATE SET event_id = inbox_held.event_id
RETURNING event_id;

-- name: InboxHeldPage :many
-- The next held events of the aggregate from a version on, in order, served by inbox_held_pkey.
SELECT * FROM inbox_held
WHERE subscriber = @subscriber
    AND aggregate_type = @aggregate_type
    AND aggregate_id = @aggregate_id
    AND aggregate_version >= @from_version
ORDER BY aggregate_version
LIMIT @max_rows;

-- name: InboxHeldFull :one
-- Reports whether the held events of all subscribers fill so many bytes. The size of the files is an upper bound that costs nothing. Only
-- where it is reached are the rows counted, because files keep the space of rows that are gone. 300 bytes are a row without its data.
SELECT (
    CASE
        WHEN pg_total_relation_size('inbox_held') < @max_bytes::bigint THEN false
        ELSE (SELECT coalesce(sum(pg_column_size(event_data) + 300), 0) FROM inbox_held) >= @max_bytes::bigint
    END
)::boolean AS held_full;

-- name: InboxMissing :many
-- The aggregates whose lowest held event has waited for so many seconds and was not asked about in that time, with the version that they
-- wait for and how long.
SELECT
    lowest.aggregate_type,
    lowest.aggregate_id,
    (coalesce(seen.version, 0) + 1)::bigint AS first_missing,
    lowest.aggregate_version AS held_version,
    lowest.held_at,
    extract(epoch FROM now() - lowest.held_at)::float8 AS waited
FROM (
    SELECT DISTINCT ON (held.aggregate_type, held.aggregate_id) held.*
    FROM inbox_held AS held
    WHERE held.subscriber = @subscriber
    ORDER BY held.aggregate_type, held.aggregate_id, held.aggregate_version
) AS lowest
LEFT JOIN inbox_aggregate AS seen
    ON seen.subscriber = @subscriber AND seen.aggregate_type = lowest.aggregate_type AND seen.aggregate_id = lowest.aggregate_id
WHERE lowest.held_at < now() - make_interval(secs => @seconds::float8)
    AND (lowest.asked_at IS NULL OR lowest.asked_at < now() - make_interval(secs => @seconds::float8))
ORDER BY lowest.held_at
LIMIT @max_rows;

-- name: InboxAsked :exec
-- Notes that the versions before a held event were asked for.
UPDATE inbox_held SET asked_at = now()
WHERE subscriber = @subscriber
    AND aggregate_type = @aggregate_type
    AND aggregate_id = @aggregate_id
    AND aggregate_version = @aggregate_version;

-- name: InboxHeldTotals :one
-- How many events the subscriber holds, and in how many aggregates the lowest one has waited for so many seconds.
SELECT
    (SELECT count(*) FROM inbox_held WHERE inbox_held.subscriber = @subscriber) AS events,
    count(*) FILTER (WHERE lowest.held_at < now() - make_interval(secs => @seconds::float8)) AS given_up
FROM (
    SELECT DISTINCT ON (held.aggregate_type, held.aggregate_id) held.held_at
    FROM inbox_held AS held
    WHERE held.subscriber = @subscriber
    ORDER BY held.aggregate_type, held.aggregate_id, held.aggregate_version
) AS lowest;
