-- Only the owner of the database creates anything in schema public.
-- Why: up to PostgreSQL 14 every user may (PostgreSQL 15 and later begin without that right). A
-- table or function that a component's user creates there stands beside outbox under names that
-- others look up. The owner of table outbox or of the publication can take the table out of the
-- relay's sight. TestGrants shows that no component's role can.
-- A user who does not own schema public revokes nothing here, and gets a warning.
-- Locks: none that a reader or writer of a table waits for.

-- +goose Up
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- +goose Down
-- The right stays revoked. It is not known here which server had it, and nothing of this project
-- needs it.
SELECT 1;
