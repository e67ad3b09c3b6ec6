-- Group roles: what each component may do. Login users are made elsewhere and join one of them, so that a password is never a
-- migration's business.
--   * outbox_api reads and writes cars and appends to outbox. It cannot read, change or remove an event.
--   * outbox_relay reads outbox: walrelay's or DMS's initial load. Replication itself is an attribute of the login user
--     (REPLICATION, on RDS membership in rds_replication) and cannot be inherited from a group.
-- Why idempotent: roles belong to the server, not to the database; a second database on the same server finds them there.
-- Locks: none that a reader or writer would notice.

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['outbox_api', 'outbox_relay'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            -- unique_violation: another database's migration made it between our look and our insert.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA public TO outbox_api, outbox_relay;
GRANT SELECT, INSERT, UPDATE ON cars TO outbox_api;
GRANT INSERT ON outbox TO outbox_api;
GRANT SELECT ON outbox TO outbox_relay;

-- The roles stay: other databases of this server may use them.
-- +goose Down
REVOKE SELECT ON outbox FROM outbox_relay;
REVOKE INSERT ON outbox FROM outbox_api;
REVOKE SELECT, INSERT, UPDATE ON cars FROM outbox_api;
REVOKE USAGE ON SCHEMA public FROM outbox_api, outbox_relay;
