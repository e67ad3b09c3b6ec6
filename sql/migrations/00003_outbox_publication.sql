-- The publication is what walrelay reads. It has the inserts into outbox and nothing else.
-- Why publish = 'insert': the DELETE of a purged row would only be noise, and an UPDATE must not exist (see 00002_outbox.sql).
-- (DMS decodes with test_decoding and does not look at publications.)
-- Locks: ShareUpdateExclusive on outbox for an instant. It does not block writers.

-- +goose Up
CREATE PUBLICATION outbox_publication FOR TABLE outbox WITH (publish = 'insert');

-- A slot looks up its publication as of the position that it decodes, not as of now. After the publication is dropped under a slot, the slot
-- can never decode the changes from its position on. Their events would have to be repaired from the table. So Down refuses.
-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
    slots text;
BEGIN
    SELECT string_agg(quote_ident(slot_name), ', ') INTO slots
    FROM pg_replication_slots
    WHERE plugin = 'pgoutput' AND database = current_database();
    IF slots IS NOT NULL THEN
        RAISE EXCEPTION 'outbox_publication is in use by replication slot %', slots
            USING HINT = 'Stop the relay, let it drain, then SELECT pg_drop_replication_slot(...) and try again.';
    END IF;
END
$$;
-- +goose StatementEnd
DROP PUBLICATION outbox_publication;
