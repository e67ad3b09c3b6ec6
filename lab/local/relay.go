package local

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"rds-outbox-demo/lab/process"
)

// Relay is a walrelay (③④), always a process of its own: it is started again when it ends by itself, and stopped and started by hand to
// see the WAL wait.
type Relay struct {
	*process.Supervisor
	killed atomic.Bool // by Kill, and not started since
}

const (
	// relayRestart keeps a relay that ends at once from spinning.
	relayRestart = time.Second
	// maxEnds is how often in a row a relay may end soon after its start before it is given up: what it says then needs a person.
	maxEnds = 3
	soon    = 10 * time.Second
	// drainTime is the relay's own drain timeout and a little.
	drainTime = 4 * time.Second
)

// newRelay makes a relay that does not run yet. Chaos stops relays in every way there is: there none is ever given up.
func (p *Path) newRelay(databaseURL, logName string) *Relay {
	c := process.SupervisorConfig{
		Config: process.Config{
			Program: p.config.Relay, Env: slices.Concat(p.config.Env, p.Services.env(), []string{"DATABASE_URL=" + databaseURL, "SLOT_NAME=" + p.slot}),
		},
		Name: "the relay", Log: filepath.Join(p.config.Dir, logName), RestartDelay: relayRestart, Patience: drainTime,
		MaxEnds: maxEnds, Soon: soon, Forgiven: p.DatabaseStopped,
	}
	c.Ended = func(err error) {
		p.config.Log.Warn("the relay ended and is started again", "hop", 3, "error", err, "last_line", lastLine(c.Log))
	}
	c.GaveUp = func(ends int, err error) {
		p.fail(fmt.Errorf("the relay has ended %d times (%w): %s", ends, err, lastLine(c.Log)))
	}
	if p.config.Program != "" {
		c.MaxEnds, c.RestartDelay = 0, memberRestart
	}
	return &Relay{Supervisor: process.NewSupervisor(c)}
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

// Start runs the relay until Stop or Kill. It does nothing when it runs already.
func (r *Relay) Start() error {
	r.killed.Store(false)
	return r.Supervisor.Start()
}

// Stop ends the relay: it gets its time to drain, then SIGKILL. Commits wait in the WAL until Start.
func (r *Relay) Stop(ctx context.Context) {
	r.killed.Store(false) // a killed one that is stopped does not come back by itself either
	_ = r.Supervisor.Stop(ctx)
}

// Kill ends the relay by SIGKILL, in the middle of whatever it does, and it stays down until Start. With process.ErrNotKilled it is down as
// well, but has ended by itself just before. Kill does nothing when the relay is not to run.
func (r *Relay) Kill(ctx context.Context) error {
	if !r.Running() {
		return nil
	}
	r.killed.Store(true)
	return r.TakeDown(ctx)
}

// Killed reports whether Kill has ended it, and nobody has started or stopped it since.
func (r *Relay) Killed() bool { return r.killed.Load() }

// Running reports whether it is to run: it does, or will in a moment.
func (r *Relay) Running() bool { return r.Wanted() }

// What a relay says of itself in its log.
const (
	SaysStandby   = "standby: another relay holds the slot"
	SaysStreaming = `"msg":"streaming"`
)

// Streams reports whether it is the one that reads the slot, as far as its log says: one of two stands by.
func (r *Relay) Streams() bool {
	content, err := os.ReadFile(r.Log())
	said := string(content)
	return err == nil && r.Running() && strings.LastIndex(said, SaysStreaming) > strings.LastIndex(said, SaysStandby)
}
