-- One row is one car as it is now, the state that the service owns.
-- Why: an aggregate's row also hands out the version of its events. A change of a car holds the car's row lock until commit, so version
-- order is commit order.
-- Locks: none, the table is new.
--
-- Each migration grants group roles the rights that the components need. Login users are made elsewhere and join one of these roles, so
-- that no migration handles a password:
--   * outbox_api writes cars and appends to outbox. It can neither read nor change nor remove an event.
--   * outbox_relay reads outbox for the initial load (walrelay, DMS). Replication itself is an attribute of the login user
--     (REPLICATION, on RDS membership in rds_replication) and does not come with a group.
--   * outbox_retention, which deletes old events, comes with 00004_outbox_retention.sql.

-- +goose Up
-- Roles belong to the server. A second database finds them there, so Down keeps them.
-- +goose StatementBegin
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['outbox_api', 'outbox_relay'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            -- unique_violation means that another database's migration made it between our look and our insert.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE TABLE cars (
    id uuid NOT NULL,
    make varchar(100) NOT NULL,
    model varchar(100) NOT NULL,
    year integer NOT NULL,
    color varchar(50),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT cars_pkey PRIMARY KEY (id),
    CONSTRAINT cars_version_check CHECK (version >= 1)
);

COMMENT ON TABLE cars IS 'One car as it is now.';
COMMENT ON COLUMN cars.id IS 'Aggregate id of the car''s events; never used again after the car is gone.';
COMMENT ON COLUMN cars.color IS 'NULL when nobody has said which.';
COMMENT ON COLUMN cars.version IS 'Version of the car''s latest event: 1 on insert, +1 with every change in the same transaction.';

GRANT SELECT, INSERT, UPDATE ON cars TO outbox_api;

-- +goose Down
DROP TABLE cars;
