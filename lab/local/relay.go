package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rds-outbox-demo/lab/process"
)

// Relay is the walrelay process: started again when it ends by itself, stopped and started by hand to see the WAL wait.
type Relay struct {
	program string
	env     []string
	logPath string
	log     *slog.Logger
	fail    func(error)
	excused func() bool // while true no end of it is held against it

	starts  atomic.Int64 // of the process
	running atomic.Bool  // as stop below; it can be asked while somebody starts or stops it
	killed  atomic.Bool  // by Kill, and not started since

	mu   sync.Mutex
	stop context.CancelCauseFunc // nil while stopped by hand
	done chan struct{}           // closed when the process of the last Start is gone
}

const (
	// restartDelay keeps a relay that ends at once from spinning.
	restartDelay = time.Second
	// maxEnds is how often in a row a relay may end soon after its start before it is given up: what it says then needs a person.
	maxEnds = 3
	soon    = 10 * time.Second
	// drainTime is the relay's own drain timeout and a little.
	drainTime = 4 * time.Second
)

func (s *Path) newRelay(c Config, k clients, logName string) *Relay {
	env := append(slices.Clone(c.RelayEnv),
		"DATABASE_URL="+s.DatabaseURL, "STREAM_NAME="+k.stream, "AWS_ENDPOINT_URL_KINESIS="+k.kinesisURL,
		"AWS_REGION="+k.region, "AWS_ACCESS_KEY_ID="+k.accessKeyID, "AWS_SECRET_ACCESS_KEY="+k.secretKey, "SLOT_NAME="+cmp.Or(c.Slot, "outbox_relay"),
	)
	if k.sessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+k.sessionToken)
	}
	return &Relay{program: c.Relay, env: env, logPath: filepath.Join(c.Dir, logName), log: c.Log, fail: s.fail, excused: s.DatabaseStopped}
}

// Start runs the relay until Stop. It does nothing when it runs already.
func (r *Relay) Start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		return nil
	}
	if r.done != nil {
		<-r.done // the one before may still be draining
	}
	if err := os.Rename(r.logPath, r.logPath+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotating the relay's log: %w", err)
	}
	logFile, err := os.OpenFile(r.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the relay's log: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	r.stop, r.done = cancel, done
	r.running.Store(true)
	r.killed.Store(false)
	go func() {
		defer close(done)
		defer logFile.Close()
		r.keepRunning(ctx, logFile)
	}()
	return nil
}

// keepRunning starts the relay again whenever it ends, until ctx ends or it ends too often.
func (r *Relay) keepRunning(ctx context.Context, logFile *os.File) {
	for ends := 1; ; ends++ {
		started := time.Now()
		err := r.run(ctx, logFile)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > soon {
			ends = 1
		}
		if r.excused() {
			ends = 0
		}
		if ends == maxEnds {
			r.fail(fmt.Errorf("the relay has ended %d times (%w): %s", ends, err, lastLine(r.logPath)))
			return
		}
		r.log.Warn("the relay ended and is started again", "hop", 3, "error", err, "last_line", lastLine(r.logPath))
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartDelay):
		}
	}
}

// lastLine is what a program that ended said last, or that it said nothing.
func lastLine(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return cmp.Or(lines[len(lines)-1], "it said nothing")
}

// Stop ends the relay: it gets its time to drain, then SIGKILL. Commits wait in the WAL until Start.
func (r *Relay) Stop(ctx context.Context) { r.end(ctx, nil) }

// Kill ends the relay by SIGKILL, in the middle of whatever it does, and it stays down until Start.
func (r *Relay) Kill(ctx context.Context) { r.end(ctx, errKill) }

// Why a relay is ended by SIGKILL. Without one of them it may drain.
var (
	errKill  = errors.New("the relay is to be killed")
	errPause = errors.New("the slot is to be free for a moment")
)

func (r *Relay) end(ctx context.Context, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop == nil {
		if cause == nil {
			r.killed.Store(false) // a killed one that is stopped does not come back by itself either
		}
		return
	}
	r.stop(cause)
	r.stop = nil
	r.running.Store(false)
	r.killed.Store(errors.Is(cause, errKill))
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// Killed tells whether Kill has ended it, and nobody has started or stopped it since.
func (r *Relay) Killed() bool { return r.killed.Load() }

// Running tells whether it is to run: it does, or will in a moment.
func (r *Relay) Running() bool { return r.running.Load() }

// streams tells whether it is the one that reads the slot, as far as its log says: one of two stands by.
func (r *Relay) streams() bool {
	content, err := os.ReadFile(r.logPath)
	said := string(content)
	return err == nil && r.Running() && strings.LastIndex(said, `"msg":"streaming"`) > strings.LastIndex(said, saysStandby)
}

const saysStandby = "standby: another relay holds the slot"

// Starts is how often a process of it was started.
func (r *Relay) Starts() int { return int(r.starts.Load()) }

// run runs the relay once, until it ends or ctx does.
func (r *Relay) run(ctx context.Context, log *os.File) error {
	relay, err := process.Start(process.Config{Program: r.program, Env: r.env, Output: log})
	if err != nil {
		return err
	}
	r.starts.Add(1)
	select {
	case <-relay.Done():
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			relay.Signal(os.Kill)
		}
		relay.Stop(context.Background(), drainTime)
	}
	return relay.Err()
}
