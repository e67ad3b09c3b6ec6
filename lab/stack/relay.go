package stack

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
	// drainTime is the relay's own drain timeout and a little.
	drainTime = 4 * time.Second
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

// run runs the relay once, until it ends or ctx does.
func (r *Relay) run(ctx context.Context, log *os.File) error {
	relay, err := process.Start(process.Config{Program: r.program, Env: r.env, Output: log})
	if err != nil {
		return err
	}
	select {
	case <-relay.Done():
	case <-ctx.Done():
		relay.Stop(context.Background(), drainTime)
	}
	return relay.Err()
}
