-- One row is one car as it is now: the state that the service owns.
-- Why: an aggregate's row also hands out the version of its events. Whoever changes a car holds its row lock until commit, so
-- version order is commit order.
-- Locks: none, the table is new.

-- +goose Up
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

-- +goose Down
DROP TABLE cars;
