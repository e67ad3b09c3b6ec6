-- The canary commits an event a minute (handlers/canary), so that somebody notices when none arrives on the bus.
--   * outbox_canary appends to outbox, and can do nothing else: it reads no event and knows no other table.
-- Locks: none that a reader or writer of a table waits for.

-- +goose Up
-- Down keeps the role: see 00001_cars.sql.
-- +goose StatementBegin
DO $$
BEGIN
    CREATE ROLE outbox_canary NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
-- +goose StatementEnd

GRANT INSERT ON outbox TO outbox_canary;

-- +goose Down
REVOKE INSERT ON outbox FROM outbox_canary;
