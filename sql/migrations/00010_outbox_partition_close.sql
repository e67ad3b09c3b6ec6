-- outbox_partition_close no longer returns a partition without an upper bound.
-- Why: retention dropped a DEFAULT partition, or one up to MAXVALUE, with rows that were seconds old. The function exists only where
-- make migrate CMD=partition made it (migrate/partition.sql). A new function is as it should be, and then this replaces nothing.
-- Locks: none.

-- +goose Up
-- +goose StatementBegin
DO $do$
DECLARE
    definition text := pg_get_functiondef(to_regprocedure('public.outbox_partition_close(interval)'));
BEGIN
    IF definition IS NOT NULL THEN
        EXECUTE replace(definition, 'IF part IS NULL OR ended > now()', 'IF part IS NULL OR ended IS NULL OR keep IS NULL OR ended > now()');
    END IF;
END
$do$;
-- +goose StatementEnd

-- Down keeps the function, because no release needs the fault.
-- +goose Down
SELECT 1;
