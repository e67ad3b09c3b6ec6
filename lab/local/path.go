// Package local runs the whole path ①-⑥ on this machine: PostgreSQL, the API, walrelay as a process of its own, the local AWS
// listener, and the consumer behind Lambda's poller. `make dev` and `make demo` are this plus what they show.
//
// In: a data folder, and optionally a database or AWS endpoints of the user's own. Out: the API's address, and a call for
// every event that reached the bus, with the times of its hops.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/awslocal"
)

// Config of a Path. Dir, Root, Relay, Listen, OnEvent, Progress and Log are required.
type Config struct {
	Dir    string // data folder: everything that is kept between runs
	Root   string // folder with node_modules, where PostgreSQL's binaries are
	Relay  string // path of the walrelay program
	Listen string // address of the API, such as 127.0.0.1:3000
	// RelayEnv is the walrelay process's environment beside what the stack adds.
	RelayEnv []string
	// Slot is the relay's slot; names are the server's, not the database's. Default outbox_relay.
	Slot string
	// Durable lets commits survive a crash of the machine; a throw-away stack does without.
	Durable bool
	// DatabaseURL is a server of the user's own instead of the local one.
	DatabaseURL string
	AWS         AWS
	// OnEvent is called for every event on the bus, one call at a time. It must not block.
	OnEvent func(Arrival)
	// Observe is told what passes each hop. Nil: nobody looks, and it costs nothing.
	Observe *Observer
	// Progress is told in a few words what is being started.
	Progress func(string)
	Log      *slog.Logger
}

// Path is a running path.
type Path struct {
	APIURL      string
	DatabaseURL string
	Relay       *Relay
	// SecondRelay is not started: see StartSecondRelay.
	SecondRelay *Relay
	// AWS is the local listener, where faults can be switched on; nil when every service is the user's own.
	AWS *awslocal.Server

	clients  clients
	dir      string
	slot     string
	database *database // nil when it is the user's own
	carStats *carStats // never nil; without a local bus it has nothing to run
	failed   chan error
	close    []func(context.Context) error // in the order of starting
}

// Start brings everything up in the order of dependence and returns once the API answers. With an error nothing is left running.
func Start(ctx context.Context, c Config) (_ *Path, err error) {
	s := &Path{dir: c.Dir, failed: make(chan error, 8)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// Named first: a taken port is the most likely thing to go wrong, and the quickest to see.
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w (set PORT to another port)", c.Listen, err)
	}
	s.onClose(func(context.Context) error { return ignoreClosed(listener.Close()) })
	s.APIURL = "http://" + listener.Addr().String()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}

	if s.DatabaseURL, err = s.startDatabase(ctx, c); err != nil {
		return nil, err
	}
	c.Progress("migrations")
	if err := migrateUp(ctx, s.DatabaseURL); err != nil {
		return nil, err
	}
	tracker := newTracker(c.OnEvent, c.Observe)
	clients, err := s.startAWS(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := s.startConsumer(ctx, c, clients, tracker); err != nil {
		return nil, err
	}
	s.startCarStats(c, clients)
	c.Progress("relay")
	s.Relay = s.newRelay(c, clients, "walrelay.log")
	s.SecondRelay = s.newRelay(c, clients, "walrelay-2.log")
	s.clients, s.slot = clients, cmp.Or(c.Slot, "outbox_relay")
	s.onClose(func(ctx context.Context) error { s.stopRelays(ctx); return nil })
	if err := s.Relay.Start(); err != nil {
		return nil, err
	}
	s.awaitStreaming(ctx)
	return s, s.startAPI(ctx, c, listener)
}

// awaitStreaming waits a little until the relay streams: what is committed before that comes with its load, without the times of its
// hops. A relay that has much to load, or that cannot start, is not waited for: commits are safe, and its own end is reported.
func (s *Path) awaitStreaming(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DatabaseURL)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for streaming := false; err == nil && !streaming; {
		err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication AS r JOIN pg_replication_slots AS s ON s.active_pid = r.pid "+
			"WHERE s.slot_name = $1 AND r.state IN ('streaming', 'catchup'))", s.slot).Scan(&streaming)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Failed delivers why a part of the stack ended that cannot be started again by itself.
func (s *Path) Failed() <-chan error { return s.failed }

// Close stops everything against the order of starting, within 5 seconds. What is on its way stays in the WAL or the stream
// and arrives after the next start.
func (s *Path) Close() error {
	if s.AWS != nil {
		// What drains would run into faults that are still on, and take all of its time for nothing.
		for _, fault := range s.AWS.Faults().List() {
			fault.Off()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all error
	for i := len(s.close) - 1; i >= 0; i-- {
		all = errors.Join(all, s.close[i](ctx))
	}
	s.close = nil
	return all
}

func (s *Path) onClose(f func(context.Context) error) { s.close = append(s.close, f) }

func (s *Path) fail(err error) {
	select {
	case s.failed <- err:
	default: // the first few are enough
	}
}

// apiConnections are more than the default, which is the number of cores: commits at the same time share the disk's time.
const apiConnections = 16

func (s *Path) startAPI(ctx context.Context, c Config, listener net.Listener) error {
	config, err := pgxpool.ParseConfig(s.DatabaseURL)
	if err != nil {
		return fmt.Errorf("opening the API's pool: %w", err)
	}
	pgsession.Fix(config.ConnConfig, "carapi", pgsession.Limits{})
	config.MaxConns = max(config.MaxConns, apiConnections)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening the API's pool: %w", err)
	}
	s.onClose(func(context.Context) error { pool.Close(); return nil })
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: c.Log})
	if err != nil {
		return err
	}
	server := carapi.NewServer(c.Observe.watchAPI(handler))
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serving the API: %w", err))
		}
	}()
	s.onClose(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			return server.Close()
		}
		return nil
	})
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
