-- The functions with which retention tends an outbox that is partitioned by created_at. migrate.Partition makes them. docs/scaling.md says
-- when partitions are worth it, and what they cost.
--
-- Each runs with the rights of the owner, because only the owner of a table attaches or drops its partitions. Only outbox_retention may
-- call them. It may delete every row of outbox without them, too.

-- outbox_partitions_attach attaches partitions until seven of them begin in the future. Each is as wide as the newest one. It returns
-- how many it attached. It locks out no writer.
CREATE OR REPLACE FUNCTION public.outbox_partitions_attach() RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET timezone = 'UTC'
AS $$
DECLARE
    newest regclass;
    lower timestamptz;
    upper timestamptz;
    part name;
    attached integer := 0;
BEGIN
    -- Two calls at once would make the same partition. Attaching takes this lock anyway.
    LOCK TABLE ONLY public.outbox IN SHARE UPDATE EXCLUSIVE MODE;
    LOOP
        SELECT inhrelid, bounds[1]::timestamptz, bounds[2]::timestamptz INTO newest, lower, upper
        FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid,
        LATERAL regexp_match(pg_catalog.pg_get_expr(relpartbound, inhrelid), $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$) AS bounds
        WHERE inhparent = 'public.outbox'::regclass AND bounds IS NOT NULL
        ORDER BY bounds[2]::timestamptz DESC LIMIT 1;
        IF newest IS NULL THEN
            RAISE EXCEPTION 'public.outbox has no partition with two bounds, whose width the next one could take'
                USING HINT = 'Attach one by hand, such as FOR VALUES FROM (<end of the last>) TO (<a day later>).';
        END IF;
        EXIT WHEN lower >= now() + 6 * (upper - lower);
        part := 'outbox_' || to_char(upper, 'YYYYMMDD_HH24MISS');
        -- A partition is made beside outbox and then attached, because CREATE TABLE ... PARTITION OF would lock writers out. It has the
        -- keys of the table as it was before it had partitions.
        EXECUTE format('CREATE TABLE public.%I (LIKE %s INCLUDING ALL)', part, newest);
        EXECUTE format('ALTER TABLE public.outbox ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', part, upper, upper + (upper - lower));
        attached := attached + 1;
    END LOOP;
    RETURN attached;
END
$$;

-- outbox_partition_close returns the oldest partition if it ended longer than keep ago, and NULL otherwise. Until the end of the
-- transaction no other writes into it.
--
-- A partition is not proven because its time is long over. A transaction that began in that time may still be open, and then its rows go
-- into the old partition when no relay has seen them. The lock waits for such a writer, or gives up. A position of the WAL that is noted
-- after this call is behind every row of the partition.
--
-- A DEFAULT partition, and one up to MAXVALUE, has no end and may hold rows that are seconds old. Its end is NULL here. A comparison with
-- NULL is not true, so it must not be the condition that keeps a partition.
CREATE OR REPLACE FUNCTION public.outbox_partition_close(keep interval) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
DECLARE
    part text;
    ended timestamptz;
BEGIN
    SELECT inhrelid::regclass, substring(pg_catalog.pg_get_expr(relpartbound, inhrelid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz AS bound
    INTO part, ended
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'public.outbox'::regclass
    ORDER BY bound LIMIT 1;
    IF part IS NULL OR ended IS NULL OR keep IS NULL OR ended > now() - greatest(keep, '0') THEN
        RETURN NULL;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE MODE', part);
    RETURN part;
END
$$;

-- outbox_partition_drop drops a partition that outbox_partition_close has returned in this transaction, and reports whether it did. It does
-- not if the slot has not confirmed the position. handlers/retention asks for that before, and for more. This asks again, because an
-- earlier look could be outdated. AWS DMS does not follow partitions, so its slot proves nothing.
--
-- The drop takes a lock that waits for every writer, and every other writer waits behind it. It gives up before they notice.
CREATE OR REPLACE FUNCTION public.outbox_partition_drop(part text, slot name, confirmed pg_lsn) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '100ms'
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_locks ON relation = inhrelid AND locktype = 'relation' AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        WHERE inhparent = 'public.outbox'::regclass AND inhrelid = part::regclass AND pid = pg_catalog.pg_backend_pid() AND mode = 'ShareLock' AND granted
    ) THEN
        RAISE EXCEPTION '% is not a partition of public.outbox that outbox_partition_close has returned in this transaction', part;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_replication_slots
        WHERE slot_name = slot
            AND plugin = 'pgoutput'
            AND database = current_database()
            AND NOT temporary
            AND wal_status IN ('reserved', 'extended')
            AND confirmed_flush_lsn >= confirmed
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %s', part::regclass);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION public.outbox_partitions_attach(), public.outbox_partition_close(interval), public.outbox_partition_drop(text, name, pg_lsn) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.outbox_partitions_attach(), public.outbox_partition_close(interval), public.outbox_partition_drop(text, name, pg_lsn)
    TO outbox_retention;
