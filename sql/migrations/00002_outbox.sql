-- One row is one event that happened to one aggregate, written in the transaction of the change itself.
-- Why the shape:
--   * The table is append-only. The WAL record of an UPDATE leaves out unchanged TOASTed columns, so an updated row would reach the
--     stream without its event_data. So there is no processed_at. The hops after the table know what was published.
--   * The primary key is what a DELETE leaves in the WAL (REPLICA IDENTITY DEFAULT). It has aggregate_id, so DMS finds its partition key
--     even for a purged row. It also makes a version that is used twice an error at the writer.
--   * aggregate_id is varchar and never text, because DMS treats text as a LOB, and a LOB cannot be a partition key.
--   * The CHECKs are limits of what comes downstream, for whoever writes with plain SQL. A row that outbox.Append takes can travel the whole
--     path. Append also checks what a CHECK cannot say simply, which is that integers are within int64 and that nesting is not too deep.
--     Such a row of another writer is parked.
-- Locks: none, the table is new.

-- +goose Up
CREATE TABLE outbox (
    id uuid NOT NULL,
    aggregate_type varchar(100) NOT NULL,
    aggregate_id varchar(255) NOT NULL,
    aggregate_version bigint NOT NULL,
    event_type varchar(100) NOT NULL,
    event_data jsonb NOT NULL,
    traceparent varchar(55),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_pkey PRIMARY KEY (aggregate_type, aggregate_id, aggregate_version),
    CONSTRAINT outbox_id_key UNIQUE (id),
    CONSTRAINT outbox_aggregate_type_check CHECK (aggregate_type ~ '^[A-Za-z][A-Za-z0-9._-]*$'),
    CONSTRAINT outbox_aggregate_id_check CHECK (aggregate_id <> ''),
    CONSTRAINT outbox_aggregate_version_check CHECK (aggregate_version >= 1),
    CONSTRAINT outbox_event_type_check CHECK (event_type ~ '^[A-Za-z][A-Za-z0-9._-]*$'),
    CONSTRAINT outbox_event_data_object_check CHECK (jsonb_typeof(event_data) = 'object'),
    -- 60 KiB of text. jsonb's text may be longer than the JSON that was sent, because it spaces members and spells 1e300 out.
    CONSTRAINT outbox_event_data_size_check CHECK (octet_length(event_data::text) <= 61440),
    -- The times that RFC 3339 can write. It refuses infinity, too.
    CONSTRAINT outbox_created_at_check CHECK (created_at >= '1970-01-01T00:00:00Z' AND created_at < '10000-01-01T00:00:00Z')
);

COMMENT ON TABLE outbox IS 'One event of one aggregate, written in the transaction of the change. Append-only.';
COMMENT ON COLUMN outbox.id IS 'UUIDv7 made by the writer: the event id, the same over every retry, replay and restart.';
COMMENT ON COLUMN outbox.aggregate_type IS 'Kind of the aggregate, such as Car. In lower case it becomes the Source on the bus.';
COMMENT ON COLUMN outbox.aggregate_id IS 'Partition key on the stream.';
COMMENT ON COLUMN outbox.aggregate_version IS '1, 2, 3 ... per aggregate, from the aggregate''s own row. Shows duplicates, gaps and disorder downstream.';
COMMENT ON COLUMN outbox.event_type IS 'DetailType on the bus, such as CarCreated.';
COMMENT ON COLUMN outbox.event_data IS 'Payload: a JSON object of at most 60 KiB as text.';
COMMENT ON COLUMN outbox.traceparent IS 'W3C traceparent of the request that caused the event; NULL when there was none.';
COMMENT ON COLUMN outbox.created_at IS 'Start of the writing transaction by the database''s clock; the event''s time on the bus.';

GRANT INSERT ON outbox TO outbox_api;
GRANT SELECT ON outbox TO outbox_relay;

-- +goose Down
DROP TABLE outbox;
