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
