-- The tables with which a subscriber of the bus counts each event once (package inbox), and the totals of the example subscriber,
-- handlers/carstats. Here they share the service's database, because one database is enough for an example. Nothing here refers to cars or
-- outbox, and nothing there refers to these tables. A subscriber of another team takes inbox and inbox_aggregate into its own database. They
-- must be in the database of its results, because they are written in one transaction with them.
-- Why two tables: an id tells whether an event was processed, and a version tells its place among the aggregate's events. Ids may be
-- forgotten in time (inbox.Forget). Versions may not, because the oldest event of a forgotten aggregate would be new again.
-- Locks: none, the tables are new.

-- +goose Up
-- Down keeps the role (see 00001_cars.sql).
-- +goose StatementBegin
DO $$
BEGIN
    CREATE ROLE outbox_carstats NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
-- +goose StatementEnd

CREATE TABLE inbox (
    subscriber varchar(100) NOT NULL,
    event_id uuid NOT NULL,
    aggregate_type varchar(100) NOT NULL,
    aggregate_id varchar(255) NOT NULL,
    aggregate_version bigint NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT inbox_pkey PRIMARY KEY (subscriber, event_id)
);

-- Serves inbox.Forget.
CREATE INDEX inbox_processed_at_idx ON inbox (subscriber, processed_at);

COMMENT ON TABLE inbox IS 'One event that one subscriber has processed, written in the transaction of the processing.';
COMMENT ON COLUMN inbox.subscriber IS 'Who has processed it: subscribers do not see each other''s events.';
COMMENT ON COLUMN inbox.event_id IS 'The event id, the same over every retry, replay and restart.';

CREATE TABLE inbox_aggregate (
    subscriber varchar(100) NOT NULL,
    aggregate_type varchar(100) NOT NULL,
    aggregate_id varchar(255) NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT inbox_aggregate_pkey PRIMARY KEY (subscriber, aggregate_type, aggregate_id)
);

COMMENT ON TABLE inbox_aggregate IS 'How far a subscriber is with one aggregate. Its row lock lets one event of the aggregate in at a time.';
COMMENT ON COLUMN inbox_aggregate.version IS 'Highest version processed; 0 for none.';

CREATE TABLE car_stats (
    make varchar(100) NOT NULL,
    year integer NOT NULL,
    cars bigint NOT NULL,
    changes bigint NOT NULL,
    CONSTRAINT car_stats_pkey PRIMARY KEY (make, year)
    -- There is no CHECK (cars >= 0), because it would see the -1 that CarStatsAdd offers for insertion before it finds the row to add to.
);

COMMENT ON TABLE car_stats IS 'Totals that carstats keeps of what it hears on the bus.';
COMMENT ON COLUMN car_stats.cars IS 'Cars of this make and year as they are now.';
COMMENT ON COLUMN car_stats.changes IS 'Events that said this make and year: created, changed or deleted.';

CREATE TABLE car_stats_car (
    car_id uuid NOT NULL,
    make varchar(100) NOT NULL,
    year integer NOT NULL,
    CONSTRAINT car_stats_car_pkey PRIMARY KEY (car_id)
);

COMMENT ON TABLE car_stats_car IS 'Under which make and year carstats has counted a car; no row for one that was deleted.';

GRANT SELECT, INSERT, DELETE ON inbox TO outbox_carstats;
GRANT SELECT, INSERT, UPDATE ON inbox_aggregate, car_stats TO outbox_carstats;
GRANT SELECT, INSERT, DELETE ON car_stats_car TO outbox_carstats;

-- +goose Down
DROP TABLE car_stats_car;
DROP TABLE car_stats;
DROP TABLE inbox_aggregate;
DROP TABLE inbox;
