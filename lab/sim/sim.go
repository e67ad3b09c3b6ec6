// Package sim runs the relay and the consumer in virtual time, against a modelled server, stream, poller and bus, and judges what
// arrives. Everything is drawn from a seed, so a run can be repeated, and a schedule of faults that breaks the promise can be shrunk.
//
// In: a Schedule. Out: a Result with the history, the faults that struck and the verdict of package judge.
//
// walrelay.Relay and cdcconsumer.Consumer are the real ones, whole. The relay talks PostgreSQL's protocol with server.go, over
// connections that are in memory (conn.go). wal.go is the WAL with its slot, stream.go the stream, bus.go the bus and the failure
// queue, poller.go Lambda, director.go starts the relay again and strikes at its times, shrink.go makes a schedule short.
//
// Two things that happen at the same instant happen in any order. So whatever comes from a model takes a drawn time, to the nanosecond,
// and no draw depends on how many draws were made before it.
package sim

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/internal/jitter"
	"rds-outbox-demo/lab/judge"
)

// Kind is what a fault does.
type Kind string

// Fault strikes the first thing of its kind that happens at its time or later.
type Fault struct {
	Kind Kind          `json:"kind"`
	At   time.Duration `json:"at"` // since the run began
}

// Schedule is one run.
type Schedule struct {
	Seed         uint64  `json:"seed"`
	Transactions int     `json:"transactions"`
	Faults       []Fault `json:"faults"` // by time
}

// Result is what a run left behind.
type Result struct {
	History []string
	Struck  []Fault
	Settled bool // nothing was on its way any more
	Took    time.Duration
	judge.Verdict
}

// Red reports whether the promise is broken.
func (r Result) Red() bool { return !r.Settled || len(r.Violations) > 0 }

// Rules returns the rules that were broken.
func (r Result) Rules() (rules []string) {
	if !r.Settled {
		rules = append(rules, "unsettled")
	}
	for _, v := range r.Violations {
		if !slices.Contains(rules, v.Rule) {
			rules = append(rules, v.Rule)
		}
	}
	return rules
}

const (
	// faultTime is how long faults strike. Then all is well until everything has arrived.
	faultTime = 30 * time.Second
	// patience is how long everything may take to arrive after that. A relay that is refused waits up to five minutes.
	patience = 20 * time.Minute
)

// Draw makes the schedule of a seed.
func Draw(seed uint64, faults int) Schedule {
	random := rand.New(rand.NewPCG(seed, 1))
	s := Schedule{Seed: seed, Transactions: 60 + random.IntN(60)}
	for range faults {
		s.Faults = append(s.Faults, Fault{Kind: drawKind(random), At: time.Duration(random.Int64N(int64(faultTime)))})
	}
	slices.SortFunc(s.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return s
}

// Run runs a schedule. The caller is in a bubble of testing/synctest, and no other Run is under way in the process.
func Run(s Schedule) Result {
	w := newWorld(s)
	draw := jitter.Draw
	jitter.Draw = w.jitter
	defer func() { jitter.Draw = draw }()
	var group sync.WaitGroup
	log := slog.New(slog.DiscardHandler)
	group.Go(func() { w.superviseRelay(log) })
	for shard := range w.stream.shards {
		group.Go(func() { w.poll(shard, log) })
	}
	group.Go(func() { w.direct() })
	for done := range s.Transactions {
		time.Sleep(w.delay(time.Millisecond, 2*faultTime/time.Duration(s.Transactions), "write", done))
		w.write(w.draw("rows", done))
	}
	settled := w.settle()
	w.mu.Lock()
	w.over = true
	w.end(w.relay, "the run ends")
	w.changed.Broadcast()
	w.mu.Unlock()
	group.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return Result{
		History: w.history, Struck: w.struck, Settled: settled, Took: time.Since(w.began),
		Verdict: judge.Judge(judge.Round{
			Written: w.written, Poison: w.poison, Rows: w.judged(), Arrivals: w.arrivals, Parked: w.parked, Refusals: w.refusals, NotCounted: true,
		}),
	}
}

// settle waits until nothing is on its way, and reports whether that came in time.
func (w *world) settle() bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(101 * time.Millisecond) {
		w.mu.Lock()
		quiet := time.Since(w.began) > faultTime && w.walIsRead() && w.streamIsRead()
		w.mu.Unlock()
		if quiet {
			return true
		}
	}
	return false
}
