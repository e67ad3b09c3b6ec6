-- Partitions table outbox by day, so that old rows go by DROP TABLE instead of DELETE. docs/scaling.md says when that is worth it, and
-- what it costs. PostgreSQL 14 or later, walrelay only: AWS DMS does not follow partitioned tables.
--
-- Run it as the owner of the tables, after every migration, with the relay stopped: psql -1 -v ON_ERROR_STOP=1 -f partitions.sql
-- What the relay has not read yet is not lost. The slot still reads it as it was written.
-- Locks: writers wait while the rows are checked against the first bound, about a second for a million rows.

-- outbox_partitions attaches the partitions of the next seven days, and drops at most one old partition. Call it every hour as the owner.
--   * slot is the replication slot of the path. Its confirmed position is the proof that the rows are on the stream.
--   * keep is how long a row stays after its day has ended. It must be longer than the stream's retention, by more than a day.
--   * patience is how long the slot is waited for.
-- It returns the dropped partition, or NULL. An error means that nothing was dropped or attached. The next call tries again.
--
-- A partition is not proven because its day is long over. A transaction that began on that day may
-- still be open, and then its rows go into the old partition when no relay has seen them. So the
-- call first takes a lock that waits for such writers. It then notes the position of the WAL, and
-- waits for the slot. All of it is in the transaction that drops.
CREATE FUNCTION public.outbox_partitions(slot name, keep interval DEFAULT '14 days', patience interval DEFAULT '30 seconds')
RETURNS name
LANGUAGE plpgsql
SET search_path = ''
SET timezone = 'UTC'
-- A drop needs a lock, and every writer waits behind it. The call gives it up before they notice.
SET lock_timeout = '2s'
AS $$
DECLARE
    day date;
    part name;
    newest regclass;
    oldest name;
    ended timestamptz;
    position pg_lsn;
    deadline timestamptz := clock_timestamp() + patience;
BEGIN
    -- A partition is made beside outbox and then attached, because CREATE TABLE ... PARTITION OF would lock writers out.
    FOR day IN SELECT generate_series(current_date, current_date + 7, '1 day')::date LOOP
        part := 'outbox_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
        SELECT max(inhrelid)::regclass INTO newest FROM pg_catalog.pg_inherits WHERE inhparent = 'public.outbox'::regclass;
        EXECUTE format('CREATE TABLE public.%I (LIKE %s INCLUDING ALL)', part, newest);
        EXECUTE format('ALTER TABLE public.outbox ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', part, day, day + 1);
    END LOOP;

    SELECT class.relname, substring(pg_get_expr(class.relpartbound, class.oid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz AS bound
    INTO oldest, ended
    FROM pg_catalog.pg_inherits AS part
    JOIN pg_catalog.pg_class AS class ON class.oid = part.inhrelid
    WHERE part.inhparent = 'public.outbox'::regclass
    ORDER BY bound LIMIT 1;
    IF ended > now() - keep THEN
        RETURN NULL;
    END IF;

    EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', oldest);
    -- The position is that of the WAL as inserted, because with synchronous_commit off a row can be seen before its commit is
    -- flushed.
    position := pg_current_wal_insert_lsn();
    WHILE NOT EXISTS (
        SELECT FROM pg_catalog.pg_replication_slots
        WHERE slot_name = slot
            AND database = current_database()
            AND NOT temporary
            AND wal_status IN ('reserved', 'extended')
            AND confirmed_flush_lsn >= position
    ) LOOP
        IF clock_timestamp() > deadline THEN
            RAISE EXCEPTION 'slot % has not confirmed %, so % stays', slot, position, oldest
                USING HINT = 'Does the relay run on this slot? See docs/operations.md#replication-slot-lag';
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
    EXECUTE format('DROP TABLE public.%I', oldest);
    RETURN oldest;
END
$$;

-- The table as it is becomes the first partition, named after today (UTC), its last day. Its rows stay where they are.
DO $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    first name := 'outbox_' || to_char(today, 'YYYYMMDD');
BEGIN
    EXECUTE format('ALTER TABLE public.outbox RENAME TO %I', first);
    -- The root has no key of its own. It would have to contain created_at, and so would refuse nothing. Each partition keeps the
    -- keys of the table as it was.
    EXECUTE format('CREATE TABLE public.outbox (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)
        PARTITION BY RANGE (created_at)', first);
    EXECUTE format('ALTER TABLE public.outbox ATTACH PARTITION public.%I FOR VALUES FROM (MINVALUE) TO (%L)',
        first, (today + 1)::timestamp AT TIME ZONE 'UTC');
    -- Rights on a partition would bypass the rights on the table.
    EXECUTE format('REVOKE ALL ON public.%I FROM outbox_api, outbox_relay, outbox_retention', first);
END
$$;
COMMENT ON TABLE public.outbox IS 'One event of one aggregate, written in the transaction of the change. Append-only. Partitioned by day.';

-- As 00002_outbox.sql and 00004_outbox_retention.sql grant them.
GRANT INSERT ON public.outbox TO outbox_api;
GRANT SELECT ON public.outbox TO outbox_relay;
GRANT SELECT (id, created_at), DELETE ON public.outbox TO outbox_retention;

-- The publication followed the old table to its new name. Through the root every row is one of public.outbox, whatever its partition.
ALTER PUBLICATION outbox_publication SET (publish_via_partition_root = true);
ALTER PUBLICATION outbox_publication SET TABLE public.outbox;
