-- Rows of outbox are deleted when they are old enough and certainly on the stream (handlers/retention).
--   * outbox_retention may read an event's id and age, and delete it. It cannot read its content. Reading pg_replication_slots and the WAL
--     position needs no right.
--   * The index finds the oldest rows. Ids are in the order of time, too, but of the writers' clocks. A BRIN index does not suit, because
--     new rows take the space of deleted ones, and a range of blocks that has ever held an old row would be searched for good.
-- Locks: writers to outbox wait while the index is built, about a second for a million rows. For a large table build it beforehand,
-- outside of a transaction: CREATE INDEX CONCURRENTLY outbox_created_at_idx ON outbox (created_at). IF NOT EXISTS then takes it as it
-- is, so make sure that \d outbox does not call it INVALID.

-- +goose Up
-- Down keeps the role (see 00001_cars.sql).
-- +goose StatementBegin
DO $$
BEGIN
    CREATE ROLE outbox_retention NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
-- +goose StatementEnd

CREATE INDEX IF NOT EXISTS outbox_created_at_idx ON outbox (created_at);

GRANT SELECT (id, created_at), DELETE ON outbox TO outbox_retention;

-- +goose Down
REVOKE SELECT (id, created_at), DELETE ON outbox FROM outbox_retention;
DROP INDEX outbox_created_at_idx;
