-- One row is one Idempotency-Key and the answer to its change, written in the transaction of the change. A client that sends the same
-- request again gets that answer, and no second event.
-- Why the shape:
--   * A key belongs to its route and its caller. The equal key of another caller is another key.
--   * Only hashes of the caller and of the request are stored. They are compared and never shown, and an id of any length fits the key.
--   * The body is text and not jsonb, so that the second answer equals the first one byte for byte.
--   * The writer of a row says how long it counts. An expired row counts as absent, also before retention deletes it.
-- The table is not part of outbox_publication, and carries no event.
-- Locks: none, the table is new. A GRANT does not wait for writers of cars.

-- +goose Up
CREATE TABLE idempotency (
    route varchar(100) NOT NULL,
    caller_hash bytea NOT NULL,
    key varchar(255) NOT NULL,
    request_hash bytea NOT NULL,
    status integer NOT NULL,
    location varchar(255) NOT NULL,
    etag varchar(100) NOT NULL,
    body text NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotency_pkey PRIMARY KEY (route, caller_hash, key),
    CONSTRAINT idempotency_caller_hash_check CHECK (octet_length(caller_hash) = 32),
    CONSTRAINT idempotency_key_check CHECK (key ~ '^[!-~]+$'),
    CONSTRAINT idempotency_request_hash_check CHECK (octet_length(request_hash) = 32),
    CONSTRAINT idempotency_status_check CHECK (status BETWEEN 200 AND 299)
);

COMMENT ON TABLE idempotency IS 'One Idempotency-Key and the answer to its request.';
COMMENT ON COLUMN idempotency.route IS 'Pattern of the route, such as POST /cars.';
COMMENT ON COLUMN idempotency.caller_hash IS 'SHA-256 of who asked.';
COMMENT ON COLUMN idempotency.request_hash IS 'SHA-256 of method, path, If-Match and body.';
COMMENT ON COLUMN idempotency.status IS 'Of the answer. Only changes that were made are here: 2xx.';
COMMENT ON COLUMN idempotency.location IS 'Header Location of the answer; empty when it had none.';
COMMENT ON COLUMN idempotency.etag IS 'Header ETag of the answer; empty when it had none.';
COMMENT ON COLUMN idempotency.body IS 'As it was sent; empty when there was none.';
COMMENT ON COLUMN idempotency.expires_at IS 'From here on the row counts as absent.';

-- retention finds the rows that are over.
CREATE INDEX idempotency_expires_at_idx ON idempotency (expires_at);

GRANT SELECT, INSERT, DELETE ON idempotency TO outbox_api;
GRANT SELECT (expires_at), DELETE ON idempotency TO outbox_retention;
GRANT DELETE ON cars TO outbox_api;

-- +goose Down
REVOKE DELETE ON cars FROM outbox_api;
DROP TABLE idempotency;
