package chaos

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"rds-outbox-demo/lab/process"
)

// member is one process of the path. It is started again whenever it ends, unless it is held.
type member struct {
	name   string
	config process.Config
	log    *slog.Logger

	mu      sync.Mutex
	current *process.Process // nil while it is down
	changed chan struct{}    // closed and replaced when current or held changes
	ours    *process.Process // that we killed last
	hits    int              // ends by a SIGKILL that was not ours: failpoints
	held    bool
	stopped bool
	gone    chan struct{} // closed when it will not be started again
}

// restartDelay is about what a supervisor or Lambda needs.
const restartDelay = 200 * time.Millisecond

func startMember(name string, config process.Config, log *slog.Logger) *member {
	m := &member{name: name, config: config, log: log, changed: make(chan struct{}), gone: make(chan struct{})}
	go m.run()
	return m
}

func (m *member) run() {
	defer close(m.gone)
	for {
		if !m.mayStart() {
			return
		}
		p, err := process.Start(m.config)
		if err != nil {
			m.log.Error("starting a process", "process", m.name, "error", err)
			time.Sleep(restartDelay)
			continue
		}
		m.set(func() { m.current = p })
		if m.isStopped() { // stop has looked for a process before there was one
			p.Signal(os.Kill)
		}
		<-p.Done()
		m.set(func() {
			m.current = nil
			if p.Killed() && p != m.ours {
				m.hits++
			}
		})
		m.log.Info("a process ended", "process", m.name, "error", p.Err())
		time.Sleep(restartDelay)
	}
}

// mayStart waits while the member is held. False: it is to stay away.
func (m *member) mayStart() bool {
	for {
		m.mu.Lock()
		held, stopped, changed := m.held, m.stopped, m.changed
		m.mu.Unlock()
		if stopped || !held {
			return !stopped
		}
		<-changed
	}
}

func (m *member) isStopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// hit is how often the process was killed by somebody else.
func (m *member) hit() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hits
}

func (m *member) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	close(m.changed)
	m.changed = make(chan struct{})
}

// running waits until there is a process and returns it.
func (m *member) running(ctx context.Context) (*process.Process, error) {
	for {
		m.mu.Lock()
		p, changed := m.current, m.changed
		m.mu.Unlock()
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for process %s: %w", m.name, ctx.Err())
		}
	}
}

// kill ends the process with SIGKILL. The error says that it was not that which ended it.
func (m *member) kill(ctx context.Context) error {
	p, err := m.running(ctx)
	if err != nil {
		return err
	}
	m.set(func() { m.ours = p })
	p.Signal(os.Kill)
	return m.awaitKilled(ctx, p)
}

// takeDown ends the process with SIGKILL and keeps it from being started again, until release. Held first, one that is just between two
// lives could not be killed any more.
func (m *member) takeDown(ctx context.Context) error {
	p, err := m.running(ctx)
	if err != nil {
		return err
	}
	m.set(func() { m.held, m.ours = true, p })
	p.Signal(os.Kill)
	if err := m.awaitKilled(ctx, p); err != nil {
		m.release()
		return err
	}
	return nil
}

// awaitKilled waits until somebody has ended p with SIGKILL, and the member has seen it: the next fault must not take a dead process
// for its own.
func (m *member) awaitKilled(ctx context.Context, p *process.Process) error {
	for {
		m.mu.Lock()
		current, changed := m.current, m.changed
		m.mu.Unlock()
		if current != p {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of %s: %w", m.name, ctx.Err())
		}
	}
	if !p.Killed() {
		return fmt.Errorf("%s ended by itself (%s)", m.name, fmt.Sprint(p.Err()))
	}
	return nil
}

// release lets a member that was taken down be started again.
func (m *member) release() { m.set(func() { m.held = false }) }

// stop ends the member for good.
func (m *member) stop() {
	m.set(func() { m.stopped = true })
	m.mu.Lock()
	p := m.current
	m.mu.Unlock()
	if p != nil {
		p.Stop(context.Background(), time.Second)
	}
	<-m.gone
}
