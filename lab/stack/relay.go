package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
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

	mu   sync.Mutex
	stop context.CancelFunc // nil while stopped by hand
	done chan struct{}
}

// restartDelay keeps a relay that ends at once from spinning.
const restartDelay = time.Second

func newRelay(c Config, k clients, databaseURL string) *Relay {
	// Nothing of our own environment: an AWS profile of the user's must not lead the relay anywhere else.
	env := []string{
		"DATABASE_URL=" + databaseURL, "STREAM_NAME=" + k.stream, "AWS_ENDPOINT_URL_KINESIS=" + k.kinesisURL,
		"AWS_REGION=" + k.region, "AWS_ACCESS_KEY_ID=" + k.accessKeyID, "AWS_SECRET_ACCESS_KEY=" + k.secretKey,
	}
	if k.sessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+k.sessionToken)
	}
	return &Relay{program: c.Relay, env: env, logPath: filepath.Join(c.Dir, "walrelay.log"), log: c.Log}
}

// Start runs the relay until Stop. It does nothing when it runs already.
func (r *Relay) Start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		return nil
	}
	// One file per start, and the one before: bounded, whatever the relay has to say.
	if err := os.Rename(r.logPath, r.logPath+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotating the relay's log: %w", err)
	}
	logFile, err := os.OpenFile(r.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the relay's log: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		defer logFile.Close()
		for {
			err := r.run(ctx, logFile)
			if ctx.Err() != nil {
				return
			}
			r.log.Warn("the relay ended and is started again", "hop", 3, "error", err, "log", r.logPath)
			select {
			case <-ctx.Done():
				return
			case <-time.After(restartDelay):
			}
		}
	}()
	return nil
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
