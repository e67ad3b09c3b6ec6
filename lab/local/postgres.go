package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/postgres"
)

// database is the local PostgreSQL. It can be stopped and started again on its port: everything that has its URL finds it again.
type database struct {
	config postgres.Config
	fail   func(error) // told when the server ends and nobody stopped it

	stopped atomic.Bool // on purpose; false again once it answers
	closing context.Context
	close   context.CancelFunc

	mu       sync.Mutex // held while the server is started or stopped
	server   *postgres.Server
	expected chan struct{} // closed before the server is stopped on purpose
}

func newDatabase(c postgres.Config, fail func(error)) *database {
	d := &database{config: c, fail: fail}
	d.closing, d.close = context.WithCancel(context.Background())
	return d
}

// start starts the server, or does nothing when it runs.
func (d *database) start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server != nil {
		return nil
	}
	// A stack that closes does not wait for a server that starts.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	server, err := postgres.Start(ctx, d.config)
	if err != nil {
		return err
	}
	address, err := pgx.ParseConfig(server.URL())
	if err != nil {
		return errors.Join(err, server.Stop(ctx))
	}
	d.config.Port = int(address.Port)
	d.server, d.expected = server, make(chan struct{})
	d.stopped.Store(false)
	go d.watch(server, d.expected)
	return nil
}

// watch reports a server that ends by itself.
func (d *database) watch(server *postgres.Server, expected <-chan struct{}) {
	<-server.Done()
	select {
	case <-expected:
	default:
		d.fail(errors.New("PostgreSQL has ended; its log is " + filepath.Join(d.config.Dir, "server.log")))
	}
}

// stop stops the server on purpose.
func (d *database) stop(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return nil
	}
	server := d.server
	d.stopped.Store(true)
	close(d.expected)
	d.server = nil
	return server.Stop(ctx)
}

// end is stop for good, also of a server that is being started.
func (d *database) end(ctx context.Context) error {
	d.close()
	return d.stop(ctx)
}

// startDatabase starts the local server, unless the user has one, and returns the URL of the database.
func (s *Path) startDatabase(ctx context.Context, c Config) (string, error) {
	if c.DatabaseURL != "" {
		return c.DatabaseURL, nil
	}
	c.Progress("PostgreSQL")
	binaries, err := postgres.FindBinaries(c.Root)
	if err != nil {
		return "", err
	}
	s.database = newDatabase(postgres.Config{
		Dir: filepath.Join(c.Dir, "postgres"), Binaries: binaries, Durable: c.Durable,
		// As on RDS (infra/database.yml): a relay that stays away must not fill the disk.
		Settings: map[string]string{"max_slot_wal_keep_size": "4GB"},
	}, s.fail)
	s.onClose(s.database.end)
	if err := s.database.start(ctx); err != nil {
		return "", err
	}
	return s.database.server.URL(), nil
}

// StopDatabase stops the local server on purpose, and disables carstats' mapping before. That is what docs/operations.md has an operator
// do in an outage that lasts: messages that come again and again to a function without a database are received too often and end in the
// failure queue, after 24 seconds here as after an hour on AWS. Disabled, they wait in the queue, unreceived, and are counted after it.
func (s *Path) StopDatabase(ctx context.Context) error {
	if s.database == nil {
		return fmt.Errorf("%w: the database is yours (DATABASE_URL): stop it yourself", ErrNotOurs)
	}
	if err := s.carStats.disable(ctx); err != nil {
		s.carStats.enable() // the server runs on
		return err
	}
	return s.database.stop(ctx)
}

// StartDatabase starts what StopDatabase stopped, on the same port and data.
func (s *Path) StartDatabase(ctx context.Context) error {
	if s.database == nil {
		return nil
	}
	if err := s.database.start(ctx); err != nil {
		return err
	}
	s.carStats.enable()
	return nil
}

// DatabaseStopped tells whether StopDatabase has stopped the server.
func (s *Path) DatabaseStopped() bool { return s.database != nil && s.database.stopped.Load() }
