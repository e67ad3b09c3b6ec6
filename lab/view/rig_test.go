package view

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/outboxctl"
)

// rig is a path with its view, on a data folder that an earlier rig may have used.
type rig struct {
	*View
	end func()
}

func newRig(t *testing.T, dir string, theirs ...local.Services) *rig {
	t.Helper()
	return newRigWith(t, dir, func(c *local.Config) {
		if len(theirs) > 0 {
			c.AWS = theirs[0]
		}
	})
}

func newRigWith(t *testing.T, dir string, edit func(*local.Config)) *rig {
	t.Helper()
	if _, err := postgres.FindBinaries("../.."); err != nil {
		labtest.Missing(t, err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	watch := NewWatch()
	config := local.Config{
		Dir: dir, Root: "../..", Relay: labtest.Program(t, "walrelay/cmd/walrelay"), Listen: "127.0.0.1:0", Settings: local.ForPeople(), Progress: func(string) {}, OnEvent: func(local.Arrival) {}, Log: log, Observe: watch.Observer(),
	}
	// On a busy machine 4 s are too short for some batches, whose messages are then parked.
	stats := &config.Settings.CarStats
	stats.Timeout, stats.VisibilityTimeout, stats.MaxReceives = 20*time.Second, 20*time.Second, 1000
	// Nor are 5 s always enough for a call to the bus, which is then made again, and its events are there twice.
	consumer := &config.Settings.Consumer
	consumer.Timeout, consumer.CallTimeout = 2*time.Minute, time.Minute
	edit(&config)
	s, err := local.Start(t.Context(), config)
	require.NoError(t, err)
	v, err := Start(t.Context(), Config{Path: s, Watch: watch, Listen: "127.0.0.1:0", Log: log})
	require.NoError(t, err)
	v.tour.stepTime = 0 // nobody reads
	v.switches.onceTimeout = labtest.Patience
	r := &rig{View: v, end: sync.OnceFunc(func() {
		require.NoError(t, v.Close())
		require.NoError(t, s.Close())
	})}
	t.Cleanup(r.end)
	// Events that are committed before the slot exists come by a load, which has no time of commit.
	labtest.Eventually(t, "a relay that streams", func() bool { f := r.frame(); return f.Slot != nil && f.Slot.Active })
	return r
}

// send sends a request to the API and returns the car's id.
func (r *rig) send(t *testing.T, method, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.path.APIURL+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, "%s", content)
	return strings.TrimPrefix(response.Header.Get("Location"), "/cars/")
}

func (r *rig) post(t *testing.T) string {
	t.Helper()
	return r.send(t, http.MethodPost, "/cars", domain.Sample(0))
}

func (r *rig) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), r.path.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (r *rig) create(ctx context.Context, n int) error { return r.load.create(ctx, n) }

func (r *rig) frame() frame { return r.state() }

// atRest returns a frame in which nothing is under way. An event may be on the bus, and counted, before the consumer has
// answered for it. The stations' totals are as of the poll's beginning, so the frame is of a poll that began in that rest.
func (r *rig) atRest(t *testing.T) (f frame) {
	t.Helper()
	var since time.Time // of the rest; zero while something is under way
	labtest.Eventually(t, "nothing to be under way, and a poll behind it", func() bool {
		read := r.poller.found().read
		f = r.frame()
		switch {
		case slices.ContainsFunc(f.Stations, func(s station) bool { return s.InFlight > 0 || s.Backlog > 0 }),
			slices.ContainsFunc(f.Shards, func(s shardState) bool { return s.Waiting > 0 }):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		return !since.IsZero() && read.After(since)
	})
	return f
}

// stopRelay stops the relay after it has confirmed all that is committed. What it has not confirmed comes twice after its next
// start, and a relay that is slow to end is killed.
func (r *rig) stopRelay(t *testing.T) {
	t.Helper()
	conn := r.connect(t)
	var committed string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&committed))
	labtest.Eventually(t, "the relay to confirm", func() (confirmed bool) {
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1",
			r.path.Slot(), committed).Scan(&confirmed))
		return confirmed
	})
	r.path.Relay.Stop(t.Context())
}

// requireTotals waits until the totals are these, and stay so behind another poll. Of suppressed duplicates there may be more: on a machine
// that is busy SQS takes a slow subscriber for a dead one.
func (r *rig) requireTotals(t *testing.T, want totals) {
	t.Helper()
	look := func() totals {
		got := r.totals()
		if got.Suppressed > want.Suppressed {
			got.Suppressed = want.Suppressed
		}
		return got
	}
	var got totals
	for deadline := time.Now().Add(labtest.Patience); got != want; time.Sleep(20 * time.Millisecond) {
		got = look()
		if time.Now().After(deadline) {
			require.Equal(t, want, got)
		}
	}
	require.Equal(t, want, look())
}

// seen asks for what was seen of an event, as the page does. text is the answer's text.
func (r *rig) seen(t *testing.T, id uuid.UUID) (all seen, text string) {
	t.Helper()
	got := r.ask(t, http.MethodGet, "/events/"+id.String(), "")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.NoError(t, json.Unmarshal([]byte(got.body), &all))
	return all, got.body
}

// where asks for an event's story, as the page does. text is the answer's text.
func (r *rig) where(t *testing.T, id uuid.UUID) (all outboxctl.WhereReport, text string) {
	t.Helper()
	got := r.ask(t, http.MethodGet, "/events/"+id.String()+"/where", "")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.NoError(t, json.Unmarshal([]byte(got.body), &all))
	return all, got.body
}

// insert writes an event without the API.
func insert(t *testing.T, conn *pgx.Conn, createdAt string) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		VALUES (gen_random_uuid(), 'Boat', gen_random_uuid()::text, 1, 'BoatLaunched', '{"name":"Argo"}', `+createdAt+`) RETURNING id`).Scan(&id))
	return id
}

// someEvent is an event with a payload of that size.
func someEvent(t *testing.T, size int) outbox.Record {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	traceparent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	return outbox.Record{Operation: outbox.OperationInsert, Timestamp: time.Now(), Commit: outbox.Commit{Time: time.Now(), StreamPosition: "0/1.1.0/2"}, Row: dbgen.Outbox{
		ID: id, AggregateType: "Car", AggregateID: uuid.NewString(), AggregateVersion: 1, EventType: "CarCreated", CreatedAt: time.Now(), Traceparent: &traceparent,
		EventData: json.RawMessage(`{"make":"` + strings.Repeat("x", size) + `"}`),
	}}
}
