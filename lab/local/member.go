package local

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/lab/process"
)

// member is a part of the path that can be stopped and started again. It is a task of this process
// or a process of its own.
type member interface {
	Start() error
	Stop(ctx context.Context) error
}

// task is a member that runs in this process.
type task struct {
	name string
	run  func(context.Context) error
	fail func(error) // told when it ends with an error

	mu     sync.Mutex
	cancel context.CancelFunc // nil while it is stopped
	done   chan struct{}      // closed when what the last Start has started is gone
}

// Start starts it, and does nothing when it runs.
func (t *task) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	before, done := t.done, make(chan struct{})
	t.cancel, t.done = cancel, done
	go func() {
		defer close(done)
		if before != nil {
			<-before // one that Stop did not wait for
		}
		if err := t.run(ctx); err != nil {
			t.fail(fmt.Errorf("running %s: %w", t.name, err))
		}
	}()
	return nil
}

// Stop lets what is under way end, and returns when nothing of it runs, or when ctx ends.
func (t *task) Stop(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel == nil {
		return nil
	}
	t.cancel()
	t.cancel = nil
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ending %s: %w", t.name, ctx.Err())
	}
}

// Names of the members that can be processes of this program.
const (
	memberAPI      = "api"
	memberAWS      = "aws"
	memberConsumer = "consumer"
	memberCarStats = "carstats"
)

const (
	// MemberEnv names the variable that has the configuration of a member that is a process of its own.
	MemberEnv = "LAB_PART"
	// inherited is the descriptor of the listening socket that package process hands over.
	inherited = 4
	// memberRestart is about what a supervisor or Lambda needs.
	memberRestart = 200 * time.Millisecond
)

// memberConfig is the configuration of a member that can be a process of its own.
type memberConfig interface {
	// run runs the member until ctx ends. listener is nil for a member that serves nobody.
	run(ctx context.Context, listener net.Listener) error
}

// RunMember runs one member, as a process of its own, until ctx ends. The member is api, aws, consumer or carstats. Its configuration is
// JSON, from MemberEnv. It logs on standard error.
func RunMember(ctx context.Context, name, configuration string) (err error) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	config, ok := map[string]memberConfig{
		memberAPI: &APIConfig{Log: log}, memberAWS: &AWSConfig{Log: log}, memberConsumer: &ConsumerConfig{Log: log}, memberCarStats: &CarStatsConfig{Log: log},
	}[name]
	if !ok {
		return fmt.Errorf("the path has no part %q", name)
	}
	if err := json.Unmarshal([]byte(configuration), config); err != nil {
		return fmt.Errorf("reading %s: %w", MemberEnv, err)
	}
	var listener net.Listener
	if name == memberAPI || name == memberAWS {
		if listener, err = inheritedListener(); err != nil {
			return err
		}
	}
	return config.run(ctx, listener)
}

func inheritedListener() (net.Listener, error) {
	file := os.NewFile(inherited, "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("taking over the listening socket (descriptor %d): %w", inherited, err)
	}
	return listener, nil
}

// start starts a member, as a task or, where the path's members are processes, as a process. The
// member ends with the path.
func (p *Path) start(name string, listener net.Listener, config memberConfig) (member, *process.Supervisor, error) {
	if p.config.Program == "" {
		m := &task{name: name, run: func(ctx context.Context) error { return config.run(ctx, listener) }, fail: p.fail}
		p.onClose(m.Stop)
		return m, nil, m.Start()
	}
	told, err := json.Marshal(config)
	if err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", name, err)
	}
	var socket *os.File
	if listener != nil {
		if socket, err = listener.(*net.TCPListener).File(); err != nil {
			return nil, nil, fmt.Errorf("starting %s: %w", name, err)
		}
		p.onClose(func(context.Context) error { return socket.Close() })
	}
	s := process.NewSupervisor(process.SupervisorConfig{
		Config: process.Config{
			Program: p.config.Program, Args: []string{"part", name}, Env: slices.Concat(p.config.Env, []string{MemberEnv + "=" + string(told)}), Inherited: socket,
		},
		Name: name, Log: filepath.Join(p.config.Dir, name+".log"), RestartDelay: memberRestart, Patience: time.Second,
		Ended: func(err error) { p.config.Log.Info("a process ended", "process", name, "error", err) },
	})
	p.onClose(s.Stop)
	return s, s, s.Start()
}
