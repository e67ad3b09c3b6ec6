package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Relay is the walrelay process: started again when it ends by itself, stopped and started by hand to see the WAL wait.
type Relay struct {
	program string
	env     []string
	logPath string
	log     *slog.Logger
	fail    func(error)

	mu   sync.Mutex
	stop context.CancelFunc // nil while stopped by hand
	done chan struct{}      // closed when the process of the last Start is gone
}

const (
	// restartDelay keeps a relay that ends at once from spinning.
	restartDelay = time.Second
	// maxEnds is how often in a row a relay may end soon after its start before it is given up: what it says then needs a person.
	maxEnds = 3
	soon    = 10 * time.Second
)

func newRelay(c Config, k clients, databaseURL string, fail func(error)) *Relay {
	env := append(slices.Clone(c.RelayEnv),
		"DATABASE_URL="+databaseURL, "STREAM_NAME="+k.stream, "AWS_ENDPOINT_URL_KINESIS="+k.kinesisURL,
		"AWS_REGION="+k.region, "AWS_ACCESS_KEY_ID="+k.accessKeyID, "AWS_SECRET_ACCESS_KEY="+k.secretKey, "SLOT_NAME="+cmp.Or(c.Slot, "outbox_relay"),
	)
	if k.sessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+k.sessionToken)
	}
	return &Relay{program: c.Relay, env: env, logPath: filepath.Join(c.Dir, "walrelay.log"), log: c.Log, fail: fail}
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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.stop, r.done = cancel, done
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
func (r *Relay) Stop(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// watchdog becomes the relay. Before that it leaves a process behind that reads descriptor 3: a line means that the relay has
// ended; the end of the file means that we are gone, however we went, and the relay must go too.
const watchdog = `( read -r line <&3 || kill -KILL $$ ) >/dev/null 2>&1 &
exec "$@" 3<&-`

// run runs the relay once.
func (r *Relay) run(ctx context.Context, log *os.File) error {
	watched, life, err := os.Pipe()
	if err != nil {
		return err
	}
	defer life.Close()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", watchdog, "sh", r.program)
	cmd.Env = r.env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{watched}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is ours to pass on, in our order
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 4 * time.Second // its drain timeout and a little
	err = cmd.Start()
	_ = watched.Close()
	if err != nil {
		return fmt.Errorf("starting %s: %w", r.program, err)
	}
	err = cmd.Wait()
	_, _ = io.WriteString(life, "ended\n")
	return err
}
