// Package postgres runs a real PostgreSQL 17 server on this machine, without root and without Docker.
//
// In: the binaries that npm installed and a folder of its own. Out: the URL of a superuser of the database outboxdb, on
// 127.0.0.1, with wal_level=logical. The server never outlives the process that started it, however that process ends, and a
// folder whose server or owner was killed starts again with every committed row.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/private"
	"rds-outbox-demo/lab/process"
)

const (
	superuser = "dbadmin"
	database  = "outboxdb"

	// startTimeout is for initdb and a start with crash recovery on a busy machine. A usual start takes a fraction of a second.
	startTimeout = 3 * time.Minute

	// lastPatience is for the children of a killed postmaster. Each has to have a turn to notice that it is gone.
	lastPatience = time.Minute
)

// Config says which server to start. Dir and Binaries are required.
type Config struct {
	// Dir is the server's folder. Data, password and log are in it and stay. At most one server at
	// a time runs on it.
	Dir string
	// Binaries is what FindBinaries returned.
	Binaries string
	// Durable makes commits survive a crash of the machine. Without it (throw-away servers) they survive a crash of any process
	// only, and everything is faster.
	Durable bool
	// Port to listen on. 0 takes a free one. A server that is started again under its old address
	// needs its old port.
	Port int
	// Settings are further PostgreSQL settings by name, such as "wal_sender_timeout": "2s". They win over ours.
	Settings map[string]string

	pickPort func() (int, error) // tests hand out a taken one
	maxLog   int64               // bytes; tests fill less than the default
}

// Server is a running PostgreSQL. Its methods are safe for concurrent use.
type Server struct {
	password string
	port     int
	process  *process.Process
	gone     chan struct{} // every process of the server has ended
	done     chan struct{} // and its folder is free again
}

// Start starts the server and returns once it answers. It makes the data folder if there is none,
// or goes on with it. It first stops a server that a killed owner left behind on the same folder.
// The server ends with Stop or Kill, or when this process does. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	return start(ctx, cfg, accounts())
}

func start(ctx context.Context, cfg Config, as []account) (*Server, error) {
	if cfg.Dir == "" || cfg.Binaries == "" {
		return nil, errors.New("starting PostgreSQL: Config.Dir and Config.Binaries must be set")
	}
	err := private.Folder(cfg.Dir)
	if err == nil {
		cfg.Dir, err = resolve(cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready within %s", startTimeout))
	defer cancel()

	lock, err := own(cfg.Dir)
	if err != nil {
		return nil, err
	}
	server, err := startLocked(ctx, cfg, as)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("starting PostgreSQL in %s: %w", cfg.Dir, err)
	}
	go func() {
		<-server.gone
		_ = lock.Close()
		close(server.done)
	}()
	return server, nil
}

func startLocked(ctx context.Context, cfg Config, as []account) (*Server, error) {
	if err := stopLeftover(ctx, cfg.Dir); err != nil {
		return nil, err
	}
	account, version, err := chooseAccount(ctx, as, cfg.Dir, cfg.Binaries)
	if err != nil {
		return nil, err
	}
	password, err := prepare(ctx, cfg, account, version)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(logFile(cfg.Dir), logFile(cfg.Dir)+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for {
		server, output, err := launch(ctx, cfg, account, password)
		if err == nil {
			return server, nil
		}
		// Both pass. In the first case somebody took the port between our choice and the server's
		// bind. In the second, the processes of a killed postmaster have not all ended.
		passing := strings.Contains(output, "could not create any TCP/IP sockets") ||
			strings.Contains(output, "pre-existing shared memory block")
		if !passing || ctx.Err() != nil {
			return nil, fmt.Errorf("%w; the end of %s:\n%s", err, logFile(cfg.Dir), output)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// orphaned ends a server whose owner is gone. Fast shutdown waits for the readers of the WAL. After three seconds it is cut short, which
// costs a recovery and no data.
const orphaned = `kill -INT $$
for second in 1 2 3; do sleep 1; kill -0 $$ || exit; done
kill -QUIT $$`

// launch starts the server once and waits until it answers. With an error it returns what the
// server logged, and no process is left.
func launch(ctx context.Context, cfg Config, as account, password string) (_ *Server, output string, _ error) {
	port := cfg.Port
	if port == 0 {
		pick := freePort
		if cfg.pickPort != nil {
			pick = cfg.pickPort
		}
		var err error
		if port, err = pick(); err != nil {
			return nil, "", err
		}
	}
	// Appended to, so that boundLog can empty the file while the server writes.
	log, err := os.OpenFile(logFile(cfg.Dir), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = log.Close() }()
	// Every process of the server holds alive's write end. So the end of the file at the read end
	// means that all of them have ended.
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	program, err := process.Start(process.Config{
		Program: filepath.Join(cfg.Binaries, "bin", "postgres"), Args: arguments(cfg, port), Env: environment,
		Output: log, Inherited: held, Attr: &as.attr, Orphaned: orphaned,
	})
	_ = held.Close()
	if err != nil {
		return nil, "", errors.Join(err, alive.Close())
	}
	server := &Server{password: password, port: port, process: program, gone: make(chan struct{}), done: make(chan struct{})}
	go func() {
		<-program.Done()
		_, _ = io.Copy(io.Discard, alive)
		_ = alive.Close()
		close(server.gone)
	}()
	if err := server.ready(ctx); err != nil {
		stopErr := server.end(ctx, server.gone)
		logged, _ := os.ReadFile(logFile(cfg.Dir))
		return nil, lastLines(logged, 8), errors.Join(err, stopErr)
	}
	go boundLog(logFile(cfg.Dir), cmp.Or(cfg.maxLog, maxLog), server.gone)
	return server, "", nil
}

// ready waits for the server's first answer and makes the database if this is its first start.
func (s *Server) ready(ctx context.Context) error {
	// Whoever took the port may accept our connection and say nothing.
	connecting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.gone:
			cancel()
		case <-connecting.Done():
		}
	}()
	for {
		conn, err := pgx.Connect(connecting, serverURL(s.password, s.port, "postgres"))
		if err == nil {
			return errors.Join(ensureDatabase(ctx, conn), conn.Close(ctx))
		}
		select {
		case <-s.gone:
			return errors.New("the server ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w: %w", context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func ensureDatabase(ctx context.Context, conn *pgx.Conn) error {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	}
	if err != nil {
		return fmt.Errorf("making database %s: %w", database, err)
	}
	return nil
}

// URL is the superuser's URL of the database outboxdb. It carries the password.
func (s *Server) URL() string { return serverURL(s.password, s.port, database) }

// PID is the postmaster's process id.
func (s *Server) PID() int { return s.process.PID() }

// Done is closed when every process of the server has ended and its folder may be used again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop shuts the server down and waits until it is gone. It ends sessions and does not wait for
// them. Two seconds later, or when ctx ends, the shutdown is cut short. The next start then
// recovers from the WAL and loses nothing. Stopping a stopped server does nothing.
func (s *Server) Stop(ctx context.Context) error { return s.end(ctx, s.done) }

func (s *Server) end(ctx context.Context, gone <-chan struct{}) error {
	steps := []struct {
		signal   os.Signal
		patience time.Duration
		ctx      context.Context
	}{
		{syscall.SIGINT, 2 * time.Second, ctx}, // fast: a walsender waits for a reader that does not confirm
		{syscall.SIGQUIT, time.Second, context.WithoutCancel(ctx)},
		{syscall.SIGKILL, lastPatience, context.WithoutCancel(ctx)},
	}
	for _, step := range steps {
		s.process.Signal(step.signal)
		select {
		case <-gone:
			return nil
		case <-step.ctx.Done():
		case <-time.After(step.patience):
		}
	}
	return fmt.Errorf("stopping PostgreSQL (process %d): some of its processes are still there after SIGKILL", s.PID())
}

// Kill ends the postmaster with SIGKILL, as a fault would, and waits until its children have noticed and ended too.
func (s *Server) Kill() error {
	s.process.Signal(os.Kill)
	select {
	case <-s.done:
		return nil
	case <-time.After(lastPatience):
		return fmt.Errorf("killing PostgreSQL (process %d): some of its processes are still there", s.PID())
	}
}
