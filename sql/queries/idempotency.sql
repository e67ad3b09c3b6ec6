-- name: IdempotencyDelete :exec
-- Removes a key that is over, so that it can be used again.
DELETE FROM idempotency
WHERE route = @route
    AND caller_hash = @caller_hash
    AND key = @key
    AND expires_at <= now();

-- name: IdempotencyGet :one
-- The answer to a key's request, and whether the key is expired by the database's clock. pgx.ErrNoRows when there is no such key. Served
-- by idempotency_pkey.
SELECT
    request_hash,
    status,
    location,
    etag,
    body,
    (expires_at <= now())::boolean AS expired
FROM idempotency
WHERE route = @route
    AND caller_hash = @caller_hash
    AND key = @key;

-- name: IdempotencyInsert :exec
-- Stores what a key was answered. Violates idempotency_pkey when the key is there, over or not.
INSERT INTO idempotency (route, caller_hash, key, request_hash, status, location, etag, body, expires_at)
VALUES (
    @route, @caller_hash, @key, @request_hash, @status, @location, @etag, @body,
    now() + make_interval(secs => @keep_seconds::float8)
);

-- name: IdempotencyLock :one
-- Takes an advisory lock until the transaction ends. Returns false at once when another transaction has it.
SELECT pg_try_advisory_xact_lock(@number::bigint);

-- name: IdempotencyPurge :execrows
-- Deletes about so many keys that are over, the oldest first; 0 when there are none. Served by idempotency_expires_at_idx.
DELETE FROM idempotency
WHERE expires_at <= now()
    AND expires_at <= coalesce(
        (
            SELECT due.expires_at
            FROM idempotency AS due
            WHERE due.expires_at <= now()
            ORDER BY due.expires_at
            OFFSET @rows::int
            LIMIT 1
        ),
        now()
    );
