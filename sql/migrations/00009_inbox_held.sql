-- Events that came before an earlier version of their aggregate, for subscribers that need every version in order (inbox.InOrder).
-- Why the shape:
--   * The primary key is the order in which the rows are applied. Pages of it are read without a sort, however many rows there are.
--   * event_data is json and not jsonb, because the function has to get the same bytes early or late. The texts have no limit, because
--     an event that inbox.ParseEvent reads must not be refused for being early.
--   * The position is still the version of inbox_aggregate. A second copy of it could differ from the first one.
--   * Only asked_at is ever updated. A row goes in the transaction that applies its event.
-- Locks: none, the table is new.

-- +goose Up
CREATE TABLE inbox_held (
    subscriber varchar(100) NOT NULL,
    aggregate_type varchar(100) NOT NULL,
    aggregate_id varchar(255) NOT NULL,
    aggregate_version bigint NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    event_data json NOT NULL,
    traceparent text NOT NULL,
    replay text NOT NULL,
    created_at timestamptz NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    asked_at timestamptz,
    CONSTRAINT inbox_held_pkey PRIMARY KEY (subscriber, aggregate_type, aggregate_id, aggregate_version)
);

COMMENT ON TABLE inbox_held IS 'One event that waits for an earlier version of its aggregate, until the subscriber applies it.';
COMMENT ON COLUMN inbox_held.traceparent IS 'W3C; empty for none.';
COMMENT ON COLUMN inbox_held.replay IS 'Id of the replay that sent it; empty for none.';
COMMENT ON COLUMN inbox_held.created_at IS 'Time of the event, which is the start of the writing transaction.';
COMMENT ON COLUMN inbox_held.asked_at IS 'When the versions before it were asked for last; NULL when they never were.';

GRANT SELECT, INSERT, DELETE ON inbox_held TO outbox_carstats;
-- The column of the key is for ON CONFLICT, which changes nothing and returns the row that is there.
GRANT UPDATE (event_id, asked_at) ON inbox_held TO outbox_carstats;

-- +goose Down
DROP TABLE inbox_held;
