package outboxctl

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

// A slot that a person made again, or moved, has confirmed rows that nobody sent. The doctor names it, and audit says what brings them.
func TestASlotThatConfirmedWhatNobodySentIsNamed(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *rig){
		"MadeAgain": func(t *testing.T, r *rig) {
			r.exec(t, "SELECT pg_drop_replication_slot('relay')")
			r.exec(t, "SELECT pg_create_logical_replication_slot('relay', 'pgoutput')")
		},
		"AdvancedByHand": func(t *testing.T, r *rig) {
			r.exec(t, "SELECT pg_replication_slot_advance('relay', pg_current_wal_lsn())")
		},
		"LeftAlone": func(*testing.T, *rig) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newServerRig(t, nil)
			three := func(aggregate string) []outbox.Event {
				events := []outbox.Event{event(aggregate, 1), event(aggregate, 2), event(aggregate, 3)}
				r.commit(t, events...)
				return events
			}
			stop := r.startRelay(t)
			r.awaitOnStream(t, three("before")...)
			stop()
			between := three("between")
			spoil(t, r)
			stop = r.startRelay(t)
			after := three("after")
			r.awaitOnStream(t, after...)

			// The server notes the running transactions with each checkpoint. That moves catalog_xmin on.
			var c check
			r.eventually(t, "a slot that has certainly confirmed every row", func() bool {
				r.exec(t, "CHECKPOINT")
				c = r.confirmed(t)
				var passed int
				require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox WHERE "+confirmedBySlot, r.slot).Scan(&passed))
				return passed == 9
			})
			c = r.confirmed(t)
			stop()
			if name == "LeftAlone" {
				require.Equal(t, stateOK, c.State, "%v", c)
				require.Equal(t, "the newest 9 are on outbox", c.Finding)
				return
			}
			require.Equal(t, stateFail, c.State, "%v", c)
			require.Contains(t, c.Finding, "relay has confirmed past 3 of the newest 9, and outbox does not have them: the first is "+between[0].ID.String())
			require.Contains(t, c.Do, "only a replay brings them")
			// Nothing is on the bus here, and a consumer that stands is not a slot that was moved.
			report := r.audit(t)
			require.Equal(t, 9, report.Missing.Count)
			require.Equal(t, 9, report.Passed)
			for _, found := range report.Missing.Events {
				require.True(t, found.SlotPassed)
				require.Equal(t, found.AggregateID != "between", *found.OnStream, "%v", found)
			}
			require.Contains(t, r.run(t, "audit", "--grace", "0s").out, between[0].ID.String()+"  Car between v1  created "+
				r.createdAt(t, between[0]).UTC().Format(time.RFC3339Nano)+", not on the stream, and slot relay has confirmed past it: only a replay brings it\n")
		})
	}
}

func (r *rig) confirmed(t *testing.T) check {
	t.Helper()
	d := r.doctor()
	d.settled = 0
	return named(d.database(t.Context()), "confirmed rows")[0]
}

// While the relay is only behind, no row is said to be lost.
func TestARelayThatIsBehindLosesNothing(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, nil)
	stop := r.startRelay(t)
	first := event("a", 1)
	r.commit(t, first)
	r.awaitOnStream(t, first)
	stop()
	r.commit(t, event("a", 2))
	for range 3 {
		r.exec(t, "CHECKPOINT")
	}
	require.NotEqual(t, stateFail, r.confirmed(t).State)
	report := r.audit(t)
	require.Equal(t, 2, report.Missing.Count)
	for _, found := range report.Missing.Events {
		require.False(t, found.SlotPassed && found.AggregateVersion == 2, "%v", found)
		require.True(t, found.OnStream == nil || *found.OnStream)
	}
}

// A database that was put back, or another one, is behind the stream.
func TestAStreamThatIsAheadOfTheDatabaseIsNamed(t *testing.T) {
	t.Parallel()
	r := newServerRig(t, nil)
	r.startRelay(t)
	known := event("a", 1)
	r.commit(t, known)
	r.awaitOnStream(t, known)
	r.eventually(t, "a slot that has certainly confirmed the row", func() bool {
		r.exec(t, "CHECKPOINT")
		return r.confirmed(t).Finding == "the newest 1 are on outbox"
	})
	r.putRecord(t, event("b", 1), time.Now(), func(record *outbox.Record) {
		record.Commit.StreamPosition = "00000FFF/00000000.1.00000FFF/00000010"
	})
	c := r.confirmed(t)
	require.Equal(t, stateFail, c.State, "%v", c)
	require.Contains(t, c.Finding, "the stream has a commit at 00000FFF/00000010, and this server's WAL ends at 0/")
}

func TestCommitLSN(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"00000002/7C007178.3.00000002/7C0071B0": "00000002/7C0071B0",
		"00000002/7c007178.3.00000002/7c0071b0": "00000002/7C0071B0",
		"":                                      "",
		"0/1.1.0/2":                             "",
		"49671246667567228643283430150187087032206582658|1": "",
	} {
		require.Equal(t, want, commitLSN(text), text)
	}
}
