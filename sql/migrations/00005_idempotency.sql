-- One row is one Idempotency-Key and the answer that its change was given, written in the transaction of the change. Who sends the same
-- request again gets that answer, and no second event.
-- Why the shape:
--   * a key means something to its route and its caller only: another caller's equal key is another key.
--   * of the caller and of the request only hashes stay. They are compared, never shown, and an id of any length fits the primary key.
--   * the body is text, not jsonb: the second answer is the first one, byte for byte.
--   * who writes a row says how long it counts. A row that is over is as good as absent, also before retention deletes it.
-- It is not part of outbox_publication, and carries no event.
-- Locks: none, the table is new; a GRANT does not wait for writers of cars.

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
