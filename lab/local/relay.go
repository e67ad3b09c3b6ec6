package local

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"rds-outbox-demo/lab/process"
)

// Relay is a walrelay (③④), always a process of its own. It is started again when it ends by
// itself. It can be stopped and started by hand to see the WAL wait.
type Relay struct {
	*process.Supervisor
	killed atomic.Bool  // by Kill, and not started since
	said   atomic.Value // the one of SaysStandby and SaysStreaming that it said last
}

const (
	// relayRestart keeps a relay that ends at once from spinning.
	relayRestart = time.Second
	// maxEnds is how often in a row a relay may end soon after its start, or before it stands by or streams. After that its errors
	// need a person, and it is not started again.
	maxEnds = 3
	soon    = 10 * time.Second
	// drainTime is the relay's own drain timeout and a little.
	drainTime = 4 * time.Second
)

// newRelay makes a relay that does not run yet. In chaos it is started again without end, because
// chaos stops relays in every way.
func (p *Path) newRelay(databaseURL, logName string) *Relay {
	r := &Relay{}
	r.said.Store("")
	c := process.SupervisorConfig{
		Config: process.Config{
			Program: p.config.Relay, Env: slices.Concat(p.config.Env, p.Services.env(), []string{"DATABASE_URL=" + databaseURL, "SLOT_NAME=" + p.slot}),
		},
		Name: "the relay", Log: filepath.Join(p.config.Dir, logName), RestartDelay: relayRestart, Patience: drainTime,
		MaxEnds: maxEnds, Soon: soon, Forgiven: p.DatabaseStopped,
		Worked: func() bool { return r.said.Swap("") != "" },
	}
	c.Said = r.hear
	c.Ended = func(err error) {
		p.config.Log.Warn("the relay ended and is started again", "hop", 3, "error", err, "last_line", r.LastLine())
	}
	c.GaveUp = func(ends int, err error) {
		p.fail(fmt.Errorf("the relay has ended %d times (%w): %s", ends, err, r.LastLine()))
	}
	if p.config.Program != "" {
		c.MaxEnds, c.RestartDelay = 0, memberRestart
	}
	r.Supervisor = process.NewSupervisor(c)
	return r
}

// Start runs the relay until Stop or Kill. It does nothing when it runs already.
func (r *Relay) Start() error {
	r.killed.Store(false)
	if !r.Running() {
		r.said.Store("")
	}
	return r.Supervisor.Start()
}

// Stop ends the relay. The relay has time to drain, then gets SIGKILL. Commits wait in the WAL
// until Start.
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

// Running reports whether the relay is to run. It may still be starting.
func (r *Relay) Running() bool { return r.Wanted() }

// What a relay says of itself in its log.
const (
	SaysStandby   = "standby: another relay holds the slot"
	SaysStreaming = `"msg":"streaming"`
)

// hear notes what the relay says of itself. Its log is not read for it, because that has 64 MiB.
func (r *Relay) hear(line []byte) {
	if bytes.Contains(line, []byte(SaysStreaming)) {
		r.said.Store(SaysStreaming)
	} else if bytes.Contains(line, []byte(SaysStandby)) {
		r.said.Store(SaysStandby)
	}
}

// Streams reports whether this relay is the one that reads the slot, as far as its log says. Of two
// relays one stands by.
func (r *Relay) Streams() bool { return r.Running() && r.said.Load() == SaysStreaming }
