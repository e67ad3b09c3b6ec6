package walrelay_test

import (
	"context"
	"fmt"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

// A commit is in the WAL before it is in the server's commit log, and the server makes a slot's snapshot from the WAL. Here that moment lasts,
// because the process of the commit is stopped in it. A load that reads the row then takes its writer for aborted. PostgreSQL marks the row
// so, and nobody sees it again, although its commit is answered afterwards.
func TestTheLoadWaitsForACommitThatIsInTheWALOnly(t *testing.T) {
	t.Parallel()
	r, _ := newServerRig(t, map[string]string{"fsync": "on"}) // without fsync there is no commit_delay
	r.append(t, "a", 5, 1, 2)

	// The server makes a slot in two waits. Each is for the transactions that were open when it began. It follows the commits in the WAL
	// meanwhile. One that began after the second wait can be in the snapshot before it is in the commit log.
	first := r.holder(t)
	require.NoError(t, outbox.Append(t.Context(), first, event("first", 1)))
	r.start(t)
	loader := r.slotWaitsFor(t, first)
	second := r.holder(t)
	require.NoError(t, outbox.Append(t.Context(), second, event("second", 1)))
	require.NoError(t, <-r.commit(first))
	r.slotWaitsFor(t, second)
	stuck, tries, answer := r.commitIntoTheWALOnly(t)
	open := r.holder(t) // the load must not wait for this one
	require.NoError(t, outbox.Append(t.Context(), open, event("open", 1)))
	require.NoError(t, <-r.commit(second))

	line := regexp.MustCompile(fmt.Sprintf(`level=WARN msg=waiting hop=3 StreamName=\S+ SlotName=relay waiting_for="the commits of the snapshot" waiting=[1-9]\d* pid=%d application_name=holder _aws`, stuck))
	r.eventually(t, "the wait to be told", func() bool {
		require.Empty(t, r.arrived(t), "the load has read the table")
		return line.MatchString(r.logged())
	})
	asked := r.latestQuery(t, loader)
	r.eventually(t, "the lease to be renewed", func() bool { return r.latestQuery(t, loader).After(asked) })
	require.Empty(t, answer)

	require.NoError(t, syscall.Kill(stuck, syscall.SIGCONT))
	require.NoError(t, <-answer)
	r.streaming(t)
	require.NoError(t, <-r.commit(open))
	rows := 10 + 3 + 2*tries
	var kept int
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&kept))
	require.Equal(t, rows, kept, "the server has lost a row")
	r.requireWhole(t, r.await(t, rows))
}

// commit ends the transaction of a holder. The answer comes later.
func (r *rig) commit(holder *pgx.Conn) (answer <-chan error) {
	done := make(chan error, 1)
	go func() {
		_, err := holder.Exec(context.Background(), "COMMIT")
		done <- err
	}()
	return done
}

// slotWaitsFor waits until making the slot waits for a holder, and returns the process of the loader's session.
func (r *rig) slotWaitsFor(t *testing.T, holder *pgx.Conn) (loader int) {
	t.Helper()
	r.eventually(t, "the slot to wait for a transaction", func() bool {
		err := r.db.Pool.QueryRow(t.Context(), `SELECT active_pid FROM pg_replication_slots
			WHERE temporary AND $1 = ANY (pg_blocking_pids(active_pid))`, holder.PgConn().PID()).Scan(&loader)
		return err == nil
	})
	return loader
}

// latestQuery returns when a session began its latest query.
func (r *rig) latestQuery(t *testing.T, pid int) (at time.Time) {
	t.Helper()
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT query_start FROM pg_stat_activity WHERE pid = $1", pid).Scan(&at))
	return at
}

// commitIntoTheWALOnly commits an event, and stops the process of its session when the commit record is in the WAL and the commit is not
// in the commit log. It returns the process, and the answer to the commit, which comes after SIGCONT. Each of the tries commits two events.
//
// A commit with commit_delay holds the lock on writing the WAL for a tenth of a second. The other one waits for that lock. A commit that
// gets through, because the test looked too late, is tried again.
func (r *rig) commitIntoTheWALOnly(t *testing.T) (pid, tries int, answer <-chan error) {
	t.Helper()
	leader, follower := r.holder(t), r.holder(t)
	_, err := leader.Exec(t.Context(), "SELECT set_config('commit_delay', '100000', false), set_config('commit_siblings', '0', false)")
	require.NoError(t, err)
	pid = int(follower.PgConn().PID())
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // a stopped process would hold up the end of the server
	for {
		tries++
		require.NoError(t, outbox.Append(t.Context(), leader, event(fmt.Sprint("leader", tries), 1)))
		require.NoError(t, outbox.Append(t.Context(), follower, event(fmt.Sprint("follower", tries), 1)))
		led := r.commit(leader)
		answer = r.commit(follower)
		r.eventually(t, "the commit to wait or to get through", func() bool { return r.waitsToWriteWAL(t, pid) || len(answer) > 0 })
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		require.NoError(t, <-led)
		// The leader has passed the lock on. A process that still waits for it is one that was stopped in time.
		if r.waitsToWriteWAL(t, pid) {
			r.exec(t, "SELECT pg_logical_emit_message(true, 'flush', '')") // writes the WAL to its end
			return pid, tries, answer
		}
		require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		require.NoError(t, <-answer)
		for _, conn := range []*pgx.Conn{leader, follower} {
			_, err := conn.Exec(t.Context(), "BEGIN")
			require.NoError(t, err)
		}
	}
}

// waitsToWriteWAL reports whether the wait that a session has told last, and not told the end of, is for the lock on writing the WAL.
func (r *rig) waitsToWriteWAL(t *testing.T, pid int) (waits bool) {
	t.Helper()
	err := r.db.Pool.QueryRow(t.Context(), `SELECT (wait_event_type, wait_event) IS NOT DISTINCT FROM ('LWLock', 'WALWrite')
		FROM pg_stat_activity WHERE pid = $1`, pid).Scan(&waits)
	require.NoError(t, err)
	return waits
}
