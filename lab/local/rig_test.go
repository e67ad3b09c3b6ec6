package local

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/postgres"
)

// rig is a whole path and what arrived at its end.
type rig struct {
	*Path
	broken string // while this file is there, a relay ends as soon as it is started
	pool   *pgxpool.Pool
	mu     sync.Mutex
	got    []Arrival
	log    bytes.Buffer
	json   jsonLog
}

func newRig(t *testing.T, edit ...func(*Config)) *rig {
	t.Helper()
	if _, err := postgres.FindBinaries("../.."); err != nil {
		labtest.Missing(t, err)
	}
	dir := t.TempDir()
	r := &rig{broken: filepath.Join(dir, "broken")}
	script := filepath.Join(dir, "relay")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ntest -e "+r.broken+" && exit 1\nexec "+labtest.Program(t, "walrelay/cmd/walrelay")+"\n"), 0o700))
	config := Config{
		Dir: filepath.Join(dir, "data"), Root: "../..", Relay: script, Listen: "127.0.0.1:0", Settings: ForPeople(), Progress: func(string) {},
		Log: slog.New(slog.NewMultiHandler(slog.NewTextHandler(r, nil), slog.NewJSONHandler(&r.json, nil))),
		OnEvent: func(a Arrival) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, a)
		},
	}
	for _, f := range edit {
		f(&config)
	}
	var err error
	r.Path, err = Start(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		if t.Failed() {
			t.Logf("log:\n%s", r.logged())
		}
	})
	r.pool, err = pgxpool.New(t.Context(), r.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(r.pool.Close)
	// Start does not wait long for it. A second relay could be faster, and what is committed before comes by a load.
	labtest.Eventually(t, "a relay that streams", r.Relay.Streams)
	return r
}

// Write makes the rig the path's log.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// jsonLog is the same lines as CloudWatch would get them.
type jsonLog struct {
	mu    sync.Mutex
	lines [][]byte
}

func (l *jsonLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, bytes.Clone(p))
	return len(p), nil
}

func (l *jsonLog) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)]
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) arrivals() []Arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[:len(r.got):len(r.got)]
}

// byID returns every arrival of each event.
func (r *rig) byID() map[string][]Arrival {
	all := map[string][]Arrival{}
	for _, a := range r.arrivals() {
		all[a.EventID.String()] = append(all[a.EventID.String()], a)
	}
	return all
}

// post creates a car and returns its id.
func (r *rig) post(t *testing.T) string {
	t.Helper()
	response, err := http.Post(r.APIURL+"/cars", "application/json", strings.NewReader(domain.Sample(0)))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusCreated, response.StatusCode)
	_, _ = io.Copy(io.Discard, response.Body)
	return strings.TrimPrefix(response.Header.Get("Location"), "/cars/")
}

func (r *rig) patch(t *testing.T, id string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, r.APIURL+"/cars/"+id, strings.NewReader(domain.Change(1, "Red")))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	_, _ = io.Copy(io.Discard, response.Body)
}

// sent is what the consumer has sent, without what the bus added.
func sent(a Arrival) awslocal.BusEvent {
	a.Event.ID, a.Event.Accepted = "", time.Time{}
	return a.Event
}

// requireWhole waits until every committed event has arrived, and checks that first arrivals of each aggregate are in version
// order and that duplicates are identical. except are the ids of events that must not arrive.
func (r *rig) requireWhole(t *testing.T, except ...string) {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), "SELECT id::text, aggregate_id, aggregate_version FROM outbox WHERE id::text <> ALL ($1) ORDER BY aggregate_id, aggregate_version",
		append([]string{}, except...))
	require.NoError(t, err)
	type row struct {
		id, aggregate string
		version       int64
	}
	var table []row
	for rows.Next() {
		var e row
		require.NoError(t, rows.Scan(&e.id, &e.aggregate, &e.version))
		table = append(table, e)
	}
	require.NoError(t, rows.Err())
	labtest.Eventually(t, fmt.Sprintf("%d events on the bus", len(table)), func() bool { return len(r.byID()) >= len(table) })

	byID := r.byID()
	require.Equal(t, len(table), len(byID))
	first := map[string]int{}
	for place, a := range r.arrivals() {
		if _, seen := first[a.EventID.String()]; !seen {
			first[a.EventID.String()] = place
		}
	}
	for i, e := range table {
		copies := byID[e.id]
		require.NotEmpty(t, copies, "event %s of %s version %d", e.id, e.aggregate, e.version)
		for _, duplicate := range copies[1:] {
			require.Equal(t, sent(copies[0]), sent(duplicate))
		}
		if i > 0 && table[i-1].aggregate == e.aggregate {
			require.Less(t, first[table[i-1].id], first[e.id], "%s: version %d came before %d", e.aggregate, e.version, table[i-1].version)
		}
	}
}
