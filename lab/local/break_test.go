package local

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// noFailure looks whether something has ended the path.
func (r *rig) noFailure(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.Failed():
		require.NoError(t, err)
	default:
	}
}

// Everything that has the database's address finds the database again. What waited for it is
// counted, because nothing was received in vain.
func TestDatabaseIsStoppedAndStartedOnPurpose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	down := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: 503})
	for range 20 {
		r.post(t)
	}
	labtest.Eventually(t, "the stream to have them", func() bool { return down.Struck() > 1 })
	labtest.Eventually(t, "the relay to have confirmed them", func() (done bool) {
		require.NoError(t, r.pool.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= pg_current_wal_lsn() FROM pg_replication_slots").Scan(&done))
		return done
	})

	require.NoError(t, r.StopDatabase(t.Context()))
	require.True(t, r.DatabaseStopped())
	require.NoError(t, r.StopDatabase(t.Context()), "it is stopped")
	response, err := http.Post(r.APIURL+"/cars", "application/json", strings.NewReader(domain.Sample(0)))
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, response.Body)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusInternalServerError, response.StatusCode)
	// What is on the stream goes on to the subscriber's queue and waits there, visible. Each
	// message that was received now would be one step nearer to the failure queue.
	down.Off()
	labtest.Eventually(t, "the bus to have the events", func() bool { return len(r.byID()) == 20 })
	labtest.Eventually(t, "the queue to have them", func() bool { // or more, because a bus that answers late gets events again
		visible, rest, _ := strings.Cut(r.depth(t, localStats), " ")
		n, err := strconv.Atoi(visible)
		return err == nil && n >= 20 && rest == "0 0"
	})
	require.Never(t, func() bool { return !strings.HasSuffix(r.depth(t, localStats), " 0 0") }, time.Second, 50*time.Millisecond)

	require.NoError(t, r.StartDatabase(t.Context()))
	require.False(t, r.DatabaseStopped())
	labtest.Eventually(t, "the API to answer", func() bool {
		response, err := http.Get(r.APIURL + "/healthz")
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
		return response.StatusCode == http.StatusOK
	})
	r.pool.Reset()
	r.post(t)
	r.requireWhole(t)
	r.requireStats(t)
	labtest.Eventually(t, "an empty queue", func() bool { return r.depth(t, localStats) == "0 0 0" })
	require.Equal(t, "0 0 0", r.depth(t, localStats+"-failures"))
	r.noFailure(t)
}

// A relay that ends again and again is told of, but not while its database is stopped on purpose.
func TestRelayThatEndsWhileTheDatabaseIsStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	require.NoError(t, r.StopDatabase(t.Context()))
	r.Relay.Kill(t.Context())
	before := r.Relay.Starts()
	require.NoError(t, os.WriteFile(r.broken, nil, 0o600))
	require.NoError(t, r.Relay.Start())
	labtest.Eventually(t, "more ends than are forgiven", func() bool { return r.Relay.Starts() > before+maxEnds })
	r.noFailure(t)
	require.NoError(t, r.StartDatabase(t.Context()))
	select {
	case err := <-r.Failed():
		require.ErrorContains(t, err, "the relay has ended 3 times")
	case <-time.After(labtest.Patience):
		require.Fail(t, "nobody was told")
	}
}

func TestAKilledRelayStaysDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.post(t)
	r.requireWhole(t)
	victim, err := r.KillRelay(t.Context())
	require.NoError(t, err)
	require.Same(t, r.Relay, victim)
	require.True(t, r.Relay.Killed())
	require.False(t, r.Relay.Running())
	_, err = r.KillRelay(t.Context())
	require.ErrorContains(t, err, "down already")
	for range 5 {
		r.post(t)
	}
	require.Never(t, func() bool { return len(r.byID()) > 1 }, 2*relayRestart, 50*time.Millisecond)
	require.NoError(t, r.Relay.Start())
	require.False(t, r.Relay.Killed())
	r.requireWhole(t)
	require.Equal(t, 2, r.Relay.Starts())

	r.Relay.Stop(t.Context())
	require.False(t, r.Relay.Killed(), "stopped is not killed")
	r.noFailure(t)
}

func TestSecondRelayTakesOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	require.NoError(t, r.StartSecondRelay(t.Context()))
	require.True(t, r.Relay.Streams())
	require.False(t, r.SecondRelay.Streams())
	victim, err := r.KillRelay(t.Context())
	require.NoError(t, err)
	require.Same(t, r.Relay, victim)
	r.post(t)
	r.requireWhole(t)
	labtest.Eventually(t, "the second to say that it streams", r.SecondRelay.Streams) // its events may be faster than its log

	// The other way round, the relay that streams is killed, and the one that stands by takes over.
	require.NoError(t, r.Relay.Start())
	labtest.Eventually(t, "the first to stand by", func() bool { return !r.Relay.Streams() && r.Relay.Starts() == 2 })
	victim, err = r.KillRelay(t.Context())
	require.NoError(t, err)
	require.Same(t, r.SecondRelay, victim)
	r.post(t)
	r.requireWhole(t)
	r.noFailure(t)
}

func TestDroppedSlotIsLoadedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	require.NoError(t, r.StartSecondRelay(t.Context()))
	for range 5 {
		r.post(t)
	}
	r.requireWhole(t)
	seen := make(chan bool)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		killed := false
		for ; ctx.Err() == nil; time.Sleep(100 * time.Microsecond) {
			killed = killed || r.Relay.Killed() || r.SecondRelay.Killed()
		}
		seen <- killed
	}()
	require.NoError(t, r.DropSlot(t.Context()))
	cancel()
	require.False(t, <-seen, "they were paused")
	require.True(t, r.Relay.Running())
	require.True(t, r.SecondRelay.Running())
	labtest.Eventually(t, "every event once more", func() bool {
		for _, copies := range r.byID() {
			if len(copies) < 2 {
				return false
			}
		}
		return true
	})
	r.post(t)
	r.requireWhole(t)
	r.requireStats(t)
	r.noFailure(t)

	t.Run("SaysThatThereIsNone", func(t *testing.T) {
		r.Relay.Stop(t.Context())
		r.SecondRelay.Stop(t.Context())
		require.NoError(t, r.DropSlot(t.Context()))
		require.ErrorIs(t, r.DropSlot(t.Context()), ErrNoSlot)
		require.NoError(t, r.Relay.Start())
	})
}

func TestPoisonThatIsPutIsParked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := uuid.NewString()
	require.NoError(t, r.PutPoison(t.Context(), key))
	labtest.Eventually(t, "a parked record", func() bool { return r.waiting(t) == "1" })
	parked := r.parked(t)
	require.JSONEq(t, string(Poison(key)), string(parked[0].Data))
}

// Relay and consumer get time to finish what is under way. With the services out of order, they would spend all of it.
func TestCloseSwitchesFaultsOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, fault := range []awslocal.Fault{
		{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: 503},
		{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Status: 500},
	} {
		active := r.AWS.Faults().Add(fault)
		for range 10 {
			r.post(t)
		}
		labtest.Eventually(t, "a strike", func() bool { return active.Struck() > 0 })
	}
	r.closesWithoutFaults(t)
}

// closesWithoutFaults requires that Close switches every fault off before it ends the first part of the path.
func (r *rig) closesWithoutFaults(t *testing.T) {
	t.Helper()
	on := -1
	r.onClose(func(context.Context) error { // the latest part is ended first
		on = len(r.AWS.Faults().List())
		return nil
	})
	require.NoError(t, r.Close())
	require.Zero(t, on)
}

// A part that is slow to end leaves the next one its time.
func TestEachPartHasTimeToEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &Path{}
		p.onClose(func(ctx context.Context) error { return ctx.Err() })
		p.onClose(func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		require.NoError(t, p.Close())
	})
}

// A path that is broken in every way ends as a whole one, and the next one begins whole.
func TestClosesWhileEverythingIsBroken(t *testing.T) {
	t.Parallel()
	relay := labtest.Program(t, "walrelay/cmd/walrelay")
	r := newRig(t)
	for range 10 {
		r.post(t)
	}
	throttled := r.AWS.Faults().Add(awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Status: 500})
	down := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: 503})
	r.AWS.Faults().Add(awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.CallError, Status: 503})
	require.NoError(t, r.PutPoison(t.Context(), uuid.NewString()))
	for range 10 {
		r.post(t)
	}
	labtest.Eventually(t, "the faults to strike", func() bool { return throttled.Struck() > 0 && down.Struck() > 0 })
	require.NoError(t, r.StartSecondRelay(t.Context()))
	_, err := r.KillRelay(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.StopDatabase(t.Context()))
	dir := r.Dir()
	r.closesWithoutFaults(t)

	again, err := Start(t.Context(), Config{
		Dir: dir, Root: "../..", Relay: relay, Listen: "127.0.0.1:0", Settings: ForPeople(), Progress: func(string) {}, Log: slog.New(slog.DiscardHandler),
		OnEvent: func(Arrival) {},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	r.Path = again
	r.pool.Close()
	labtest.Eventually(t, "the poison in the queue", func() bool { return r.waiting(t) == "1" })
	labtest.Eventually(t, "every event on the bus", func() bool {
		seen := map[string]bool{}
		require.NoError(t, awslocal.ReadBus(dir+"/aws", func(e awslocal.BusEvent) error {
			var detail struct {
				EventID string `json:"eventId"`
			}
			require.NoError(t, json.Unmarshal(e.Detail, &detail))
			seen[detail.EventID] = true
			return nil
		}))
		return len(seen) >= 20
	})
}
