package walrelay_test

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// A slot cannot begin before the end of every open transaction. The relay says that it waits and for whom, goes on when the transaction
// ends, and ends at once when it is stopped meanwhile.
func TestTheSlotWaitsForATransaction(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		hold string // a statement at the end of the transaction that stays
		line string
		end  string
	}{
		"Open":     {"SELECT 1", `application_name=holder`, "COMMIT"},
		"Prepared": {"PREPARE TRANSACTION 'left over'", `prepared_transaction="left over"`, "COMMIT PREPARED 'left over'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The transaction would hold up every other test's slot.
			r, _ := newServerRig(t, map[string]string{"max_prepared_transactions": "2"})
			r.append(t, "a", 5, 1, 2)
			holder := r.holder(t)
			require.NoError(t, outbox.Append(t.Context(), holder, event("held", 1)))
			_, err := holder.Exec(t.Context(), tc.hold)
			require.NoError(t, err)

			stop := r.start(t)
			pattern := regexp.MustCompile(`level=WARN msg=waiting hop=3 StreamName=\S+ SlotName=relay waiting_for="transactions to end" waiting=[1-9]\d* .*` + tc.line + ` _aws`)
			r.eventually(t, "the wait to be told", func() bool { return pattern.MatchString(r.logged()) })
			before, _, _ := strings.Cut(r.logged(), pattern.FindString(r.logged()))
			require.Contains(t, before, "making a slot", "a line before the wait")
			require.NoError(t, stop(), "while the transaction is still there")
			r.eventually(t, "the server to end the wait", func() bool { return r.temporarySlots(t) == 0 })

			r.start(t)
			r.eventually(t, "the wait", func() bool { return r.temporarySlots(t) == 1 })
			require.Empty(t, r.arrived(t))
			_, err = holder.Exec(t.Context(), tc.end)
			require.NoError(t, err)
			r.requireWhole(t, r.await(t, 11))
			r.streaming(t)
		})
	}
}

// A relay that dies while it waits leaves nothing behind. Otherwise the server would wait on, and
// after a few restarts no slot would be free.
func TestKilledWhileTheSlotWaits(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, nil)
	holder := r.holder(t)
	require.NoError(t, outbox.Append(t.Context(), holder, event("held", 1)))
	kill := r.spawn(t)
	r.eventually(t, "the wait", func() bool { return r.temporarySlots(t) == 1 })
	kill()
	r.eventually(t, "the server to notice", func() bool { return r.temporarySlots(t) == 0 })
}

func ended(dead <-chan struct{}) bool {
	select {
	case <-dead:
		return true
	default:
		return false
	}
}

// holder has a transaction open in a session of its own.
func (r *rig) holder(t *testing.T) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	config.RuntimeParams["application_name"] = "holder"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	_, err = conn.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	return conn
}

// temporarySlots counts the slots that loaders have.
func (r *rig) temporarySlots(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE temporary").Scan(&n))
	return n
}

// stick keeps Kinesis from accepting any record of an aggregate.
func (r *rig) stick(aggregateID string) *awslocal.Active {
	stuck := putFault(awslocal.EntryError)
	stuck.Match, stuck.Code = aggregateID, "InternalFailure"
	return r.aws.Faults().Add(stuck)
}

// The loader's session ends while the loader waits for Kinesis. The relay notices then, not after
// the last row.
func TestALoaderNoticesTheEndOfItsSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 50, 1, 20)
	active := r.stick("a7")
	r.start(t)
	r.heldUp(t, active, 980)
	r.exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name LIKE $1 || '\\_load\\_%'", r.slot)
	r.eventually(t, "the relay to notice", func() bool { return strings.Contains(r.logged(), "connecting again") })
	active.Off()
	r.streaming(t)
	r.requireWhole(t, r.await(t, 1000))
}

// A loader that is frozen still answers TCP. The server gives it up all the same, another relay loads, and what the first one sends when
// it thaws are duplicates.
func TestAFrozenLoaderIsReplaced(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, nil)
	r.exec(t, "ALTER DATABASE "+r.database(t)+" SET wal_sender_timeout = '1s'") // the lease is 10 s
	r.append(t, "a", 50, 1, 20)
	active := r.stick("a7")
	frozen, dead := r.command(t, program(t))
	r.heldUp(t, active, 980)
	r.eventually(t, "lines about the load", func() bool {
		return regexp.MustCompile(`"msg":"loading","hop":3,"StreamName":"[^"]+","SlotName":"relay","slot_lag_bytes":\d+,"retained_wal_bytes":\d+,"rows":980,"of_rows":1000`).MatchString(r.logged())
	})
	// Only the one that freezes has such a lease. On a busy machine the other could lose its own again and again.
	r.exec(t, "ALTER DATABASE "+r.database(t)+" RESET wal_sender_timeout")
	r.start(t)
	r.eventually(t, "lines of the standby", func() bool { return strings.Count(r.logged(), "standby: another relay holds the slot") > 1 })
	// On a machine that stands still for the lease, the loader may just then be between two loads.
	r.eventually(t, "the loader to be frozen while it loads", func() bool {
		require.NoError(t, frozen.Process.Signal(syscall.SIGSTOP))
		if r.temporarySlots(t) == 1 {
			return true
		}
		require.NoError(t, frozen.Process.Signal(syscall.SIGCONT))
		return false
	})
	active.Off()

	r.streaming(t)
	r.append(t, "a", 50, 21, 21)
	r.await(t, 1050)
	require.NoError(t, frozen.Process.Signal(syscall.SIGCONT))
	r.eventually(t, "the frozen one to stand by", func() bool {
		return strings.Contains(r.logged(), `"msg":"standby: another relay holds the slot"`)
	})
	records := r.arrived(t)
	r.requireWhole(t, records)
	require.Greater(t, len(records), 1050, "both have loaded")
	require.False(t, ended(dead))
}

// The server keeps too little WAL for a load this slow. The relay says so, and by how much, instead of loading again and again.
func TestALoadThatOutlastsTheWAL(t *testing.T) {
	t.Parallel()
	for name, loses := range map[string]bool{"WillNotFit": false, "IsCutOff": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := newServerRig(t, map[string]string{"max_slot_wal_keep_size": "64MB", "min_wal_size": "32MB", "max_wal_size": "32MB"})
			r.append(t, "a", 4, 1, 100)
			r.append(t, "b", 1, 1, 1200)
			active := r.stick("b0")
			relay, dead := r.command(t, program(t))
			r.heldUp(t, active, 400) // a quarter of the rows
			r.eventually(t, "the relay to know of them", func() bool { return strings.Contains(r.logged(), `"rows":400,"of_rows":1600`) })
			if loses {
				require.NoError(t, relay.Process.Signal(syscall.SIGSTOP)) // it cannot look before it is too late
			}
			const half = 48 << 20 // of 64 MB and what is left of a segment
			for retained := 0; retained < half || loses && r.temporarySlots(t) > 0; {
				r.exec(t, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 4)")
				if loses {
					r.exec(t, "CHECKPOINT")
				}
				err := r.db.Pool.QueryRow(t.Context(), `SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), $1)::int
					FROM pg_replication_slots WHERE temporary`, half).Scan(&retained)
				require.NoError(t, err)
			}
			if loses {
				require.NoError(t, relay.Process.Signal(syscall.SIGCONT))
			}
			pattern := regexp.MustCompile(`"retry_in_ms":(\d+),"error":"[^"]*outlasts the WAL [^"]* 400 of 1600 rows [^"]*set max_slot_wal_keep_size to (\d+) MB or more`)
			r.eventually(t, "the relay to give up", func() bool { return pattern.MatchString(r.logged()) })
			told := pattern.FindStringSubmatch(r.logged())
			wait, err := strconv.Atoi(told[1])
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Duration(wait)*time.Millisecond, 30*time.Minute)
			require.False(t, ended(dead), "a supervisor would start it again at once")
			require.Equal(t, 1, strings.Count(r.logged(), "loading the retained rows"))
			require.NoError(t, relay.Process.Signal(syscall.SIGTERM))
			r.eventually(t, "the relay to end", func() bool { return ended(dead) })

			// With this much the load fits, although the test writes as much WAL again for each
			// quarter.
			r.exec(t, "ALTER SYSTEM SET max_slot_wal_keep_size = '"+told[2]+"MB'")
			r.exec(t, "SELECT pg_reload_conf()")
			active.Off()
			r.start(t)
			r.requireWhole(t, r.await(t, 1600))
			r.streaming(t)
		})
	}
}

// Without a limit, and with one that is far away, WAL written beside a load is no reason to give it up.
func TestALoadThatFits(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, map[string]string{"max_slot_wal_keep_size": "1GB"})
	r.append(t, "a", 50, 1, 20)
	active := r.stick("a7")
	r.start(t)
	r.heldUp(t, active, 980)
	r.exec(t, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 50)")
	active.Off()
	r.streaming(t)
	require.Equal(t, 1000, len(r.arrived(t)))
	r.requireWhole(t, r.read)
}

// The load reads by outbox_pkey from page to page. An index that no longer has the server's order would lead it past rows, and one that
// lacks entries would, too. The relay says so and makes no slot, because the slot would begin after the rows that the load has not sent.
func TestALoadOverABadIndexIsRefused(t *testing.T) {
	t.Parallel()
	insert := func(t *testing.T, r *rig) {
		r.exec(t, `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			SELECT gen_random_uuid(), 'Car', chr(CASE WHEN n % 2 = 0 THEN 65 ELSE 97 END + n % 26) || n, 1, 'CarCreated', '{}'
			FROM generate_series(1, 500) AS n`)
	}
	for name, tc := range map[string]struct {
		harm    func(*testing.T, *rig)
		problem string // with the number of rows that are on the stream
		sent    int
	}{
		"Order": {func(t *testing.T, r *rig) {
			insert(t, r)
			pgtest.Recollate(t, r.db.Pool)
		}, `^index outbox_pkey has \d+ of the 500 rows of outbox at a place that the server no longer gives them$`, 0},
		"Entries": {func(t *testing.T, r *rig) {
			r.append(t, "a", 10, 1, 10)
			r.exec(t, "UPDATE pg_index SET indisready = false WHERE indexrelid = 'outbox_pkey'::regclass")
			insert(t, r)
			r.exec(t, "UPDATE pg_index SET indisready = true WHERE indexrelid = 'outbox_pkey'::regclass")
		}, `^index outbox_pkey has led to 100 of the 600 rows of outbox$`, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			tc.harm(t, r)
			setup := r.setupError(t, r.run(t))
			require.Regexp(t, tc.problem, setup.Problem)
			require.Equal(t, "run REINDEX TABLE public.outbox, then start the relay again", setup.Remedy)
			_, exists := r.slotState(t)
			require.False(t, exists)
			require.LessOrEqual(t, len(r.arrived(t)), tc.sent)

			r.exec(t, "REINDEX TABLE public.outbox")
			r.start(t)
			r.streaming(t)
			r.requireWhole(t, r.arrived(t))
		})
	}
}

// A change that still stands at the end of a load. The slot must not be made, because it could not
// read the inserts since the change.
func TestAChangeThatStandsAfterTheLoadIsNoticed(t *testing.T) {
	t.Parallel()
	t.Run("Committed", func(t *testing.T) {
		t.Parallel()
		change := unpublishing["Inherited"] // neither the table's row in the catalog nor the publication's tells of it
		r := newRig(t)
		r.append(t, "a", 50, 1, 20)
		active := r.stick("a7")
		relayEnded := r.run(t)
		r.heldUp(t, active, 980)
		r.exec(t, change.do)
		r.insert(t, change.insertInto, 21, 21)
		active.Off()
		setup := r.setupError(t, relayEnded)
		require.Contains(t, setup.Problem, "other tables inherit from it")
		require.NotContains(t, setup.Remedy, "pg_drop_replication_slot", "no slot was made")
		r.exec(t, change.undo)
		r.start(t)
		r.requireWhole(t, r.await(t, 1001))
	})
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		r, _ := newServerRig(t, nil) // an open transaction keeps every other test's relay from making its slot
		r.append(t, "a", 50, 1, 20)
		active := r.stick("a7")
		r.start(t)
		r.heldUp(t, active, 980)
		holder := r.holder(t)
		_, err := holder.Exec(t.Context(), "ALTER PUBLICATION outbox_publication SET (publish = 'update')")
		require.NoError(t, err)
		active.Off()
		r.eventually(t, "the relay to notice", func() bool { return strings.Contains(r.logged(), "was changed while the rows were loaded") })
		_, err = holder.Exec(t.Context(), "ROLLBACK")
		require.NoError(t, err)
		r.streaming(t)
		r.requireWhole(t, r.await(t, 1000))
	})
}

// Two relays find no slot. The second one gets the lock after the first has made the slot, and must
// not load again.
func TestTheSecondLoaderFindsTheSlot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, "a", 5, 1, 2)
	late := &lateStream{Kinesis: r.kinesis, waits: make(chan struct{}), until: make(chan struct{})}
	release := sync.OnceFunc(func() { close(late.until) })
	config := r.config(t)
	config.Kinesis = late
	second := relayOf(t, config)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- second.Run(ctx) }()
	defer func() {
		release()
		cancel()
		require.NoError(t, <-done)
	}()
	r.eventually(t, "the end of the second one's preflight", func() bool { return ended(late.waits) })
	stop := r.start(t)
	r.streaming(t)
	require.NoError(t, stop())
	r.eventually(t, "the server to let go of the slot", func() bool { return !r.slotActive(t) })

	release()
	r.streaming(t)
	r.append(t, "b", 1, 1, 1)
	r.requireWhole(t, r.await(t, 11))
	require.Equal(t, 1, strings.Count(r.logged(), "loading the retained rows"))
}

// lateStream is a Kinesis whose first description of the stream is late. waits is closed before, and
// until lets it go.
type lateStream struct {
	walrelay.Kinesis
	once         sync.Once
	waits, until chan struct{}
}

func (k *lateStream) DescribeStreamSummary(
	ctx context.Context, in *kinesis.DescribeStreamSummaryInput, options ...func(*kinesis.Options),
) (*kinesis.DescribeStreamSummaryOutput, error) {
	k.once.Do(func() {
		close(k.waits)
		<-k.until
	})
	return k.Kinesis.DescribeStreamSummary(ctx, in, options...)
}
