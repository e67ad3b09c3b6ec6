package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/postgres"
)

// database is the local PostgreSQL. It can be stopped and started again on its port. Everything
// that has its URL then finds it again.
type database struct {
	config postgres.Config
	fail   func(error) // told when the server ends and nobody stopped it

	stopped atomic.Bool // on purpose; false again once it answers
	closing context.Context
	close   context.CancelFunc

	mu       sync.Mutex // held while the server is started or stopped
	server   *postgres.Server
	expected chan struct{} // closed before the server is stopped on purpose

	// With Config.Standby.
	endpoint      *postgres.Endpoint
	standby       *postgres.Server // nil while there is none
	standbyConfig postgres.Config
	standbys      int // made so far
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
	// A path that closes does not wait for a server that starts.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	server, err := postgres.Start(ctx, d.config)
	if err != nil {
		return err
	}
	address, err := pgsession.ParseConfig(server.URL())
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

// expect says that the server's end is on purpose. After a promotion that failed it has been said before. The caller holds mu.
func (d *database) expect() {
	select {
	case <-d.expected:
	default:
		close(d.expected)
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
	d.expect()
	d.server = nil
	return server.Stop(ctx)
}

// crash lets end end the server on purpose, and waits until it is gone.
func (d *database) crash(ctx context.Context, end func(*postgres.Server) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return errors.New("PostgreSQL is stopped already")
	}
	d.expect()
	server := d.server
	d.server = nil
	if err := end(server); err != nil {
		return errors.Join(err, server.Stop(ctx))
	}
	select {
	case <-server.Done():
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("waiting for the server's end: %w", ctx.Err()), server.Stop(ctx))
	}
}

// end is stop for good, also of a server that is being started.
func (d *database) end(ctx context.Context) error {
	d.close()
	err := d.stop(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.standby != nil {
		err = errors.Join(err, d.standby.Kill())
	}
	if d.endpoint != nil {
		err = errors.Join(err, d.endpoint.Close())
	}
	return err
}

// startDatabase starts the local server, unless the user has one, and returns the URL of the database.
func (p *Path) startDatabase(ctx context.Context, c Config) (string, error) {
	if c.DatabaseURL != "" {
		return c.DatabaseURL, nil
	}
	c.Progress("PostgreSQL")
	binaries, err := postgres.FindVersion(c.Root, cmp.Or(c.Postgres, postgres.Version))
	if err != nil {
		return "", err
	}
	p.database = newDatabase(postgres.Config{
		Dir: filepath.Join(c.Dir, "postgres"), Binaries: binaries, Durable: c.Durable,
		Settings: c.Settings.Postgres,
	}, p.fail)
	p.onClose(p.database.end)
	if err := p.database.start(ctx); err != nil {
		return "", err
	}
	if !c.Standby {
		return p.database.server.URL(), nil
	}
	if p.database.endpoint, err = postgres.NewEndpoint(p.database.server); err != nil {
		return "", err
	}
	return p.database.endpoint.URL(), nil
}

// StopDatabase stops the local server on purpose, and disables carstats' mapping before. In an
// outage that lasts, docs/operations.md has an operator do the same. Otherwise messages that come
// again and again to a function without a database are received too often and end in the failure
// queue, after 24 seconds here and after an hour on AWS. With the mapping disabled they wait in the
// queue, and are counted afterwards.
func (p *Path) StopDatabase(ctx context.Context) error {
	if err := p.CanBreakDatabase(); err != nil {
		return fmt.Errorf("%w: stop it yourself", err)
	}
	if p.carStats != nil {
		if err := p.carStats.Stop(ctx); err != nil {
			return errors.Join(err, p.carStats.Start()) // the server runs on
		}
	}
	return p.database.stop(ctx)
}

// CrashDatabase ends the local server as a fault does, without a shutdown. end makes the server end. It returns when no process of the
// server is left.
func (p *Path) CrashDatabase(ctx context.Context, end func(*postgres.Server) error) error {
	if err := p.CanBreakDatabase(); err != nil {
		return err
	}
	return p.database.crash(ctx, end)
}

// StartDatabase starts what StopDatabase or CrashDatabase has ended, on the same port and data.
func (p *Path) StartDatabase(ctx context.Context) error {
	if p.database == nil {
		return nil
	}
	if err := p.database.start(ctx); err != nil {
		return err
	}
	if p.carStats == nil {
		return nil
	}
	return p.carStats.Start()
}

// DatabaseStopped reports whether StopDatabase has stopped the server.
func (p *Path) DatabaseStopped() bool { return p.database != nil && p.database.stopped.Load() }
