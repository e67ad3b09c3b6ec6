package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/judge"
)

// round is one round's state, as the trials see it.
type round struct {
	*path
	history *history
	clients *clients
	alone   sync.RWMutex // written by a trial that runs while no other does
}

// trial breaks the path in one way, sees that it is broken, and mends it.
type trial struct {
	kind string // family first: kill-relay, kinesis-throttled ...
	// try returns an error when the path was not broken. The round proves nothing then.
	try func(ctx context.Context, r *round, random *rand.Rand) error
	// fault is the name of the fault of package faults that strikes. It is empty where the trial breaks the path in its own way.
	fault string
	rule  awslocal.Fault // of the AWS listener, where the trial is one
	// versions is the first major version of PostgreSQL on which the trial is possible. 0 means
	// every version.
	versions int
	// inOrder is set where only a subscriber in order repairs what the trial does.
	inOrder bool
	// alone is set where a verdict needs everything else to be well during the trial.
	alone bool
}

// Trials run in two lanes at the same time. One strikes services and has the unusual writers, the
// other strikes processes and the database. Two trials of one lane would undo each other.
var (
	serviceLane = slices.Concat(kinesisTrials, eventsTrials, rulesTrials, lostTrials, queueTrials, writerTrials, harmlessTrials)
	machineLane = slices.Concat(processTrials, failpointTrials, databaseTrials, slotTrials, harmTrials, partitionTrials, roleTrials, retentionTrials)
)

// trialTimeout is how long a trial may take, with the wait for its trigger. Each trial makes sure that the trigger comes, so only a trial
// that hangs takes so long. A lost slot has taken 45 s beside other work.
const trialTimeout = 3 * time.Minute

// runTrials runs one trial after the other, at random moments.
func (r *round) runTrials(ctx context.Context, trials []trial, random *rand.Rand) error {
	for _, t := range trials {
		if err := sleep(ctx, time.Duration(random.IntN(300))*time.Millisecond); err != nil {
			return err
		}
		if err := r.runTrial(ctx, t, random); err != nil {
			return fmt.Errorf("fault %s did not strike: %w", t.kind, err)
		}
	}
	return nil
}

func (r *round) runTrial(ctx context.Context, t trial, random *rand.Rand) error {
	if t.alone {
		r.alone.Lock()
		defer r.alone.Unlock()
	} else {
		r.alone.RLock()
		defer r.alone.RUnlock()
	}
	window := judge.Window{Kind: t.kind, Start: time.Now()}
	trying, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	if err := t.try(trying, r, random); err != nil {
		return err
	}
	window.End = time.Now()
	r.history.add(func() { r.history.known.Windows = append(r.history.known.Windows, window) })
	r.log.Info("fault", "kind", t.kind, "took", window.End.Sub(window.Start).String())
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// between draws a time.
func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(random.Int64N(int64(high-low)))
}

// deck deals every kind once before it deals any kind again, so that a run of a few rounds meets
// all of them.
type deck struct {
	kinds  []trial
	left   []trial
	random *rand.Rand
}

func (d *deck) deal(n int) []trial {
	var hand []trial
	for range n {
		if len(d.left) == 0 {
			d.left = slices.Clone(d.kinds)
			d.random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
		}
		hand, d.left = append(hand, d.left[0]), d.left[1:]
	}
	return hand
}

// possible returns the trials that the version of the server and the subscriber allow.
func (p *path) possible(kinds []trial) []trial {
	return slices.DeleteFunc(slices.Clone(kinds), func(t trial) bool { return t.versions > p.version || t.inOrder && !p.config.repairs() })
}

func find(kind string) trial {
	for _, t := range slices.Concat(serviceLane, machineLane, promoteTrials) {
		if t.kind == kind {
			return t
		}
	}
	panic("no trial " + kind)
}

func isService(t trial) bool {
	return slices.ContainsFunc(serviceLane, func(other trial) bool { return other.kind == t.kind })
}

// ofList makes a trial of a fault of package faults. try gets the fault, and strikes and mends it.
func ofList(kind, name string, try func(ctx context.Context, r *round, random *rand.Rand, f *faults.Fault) error) trial {
	return trial{kind: kind, fault: name, try: func(ctx context.Context, r *round, random *rand.Rand) error {
		all := faults.Of(r.Path)
		i := slices.IndexFunc(all, func(f *faults.Fault) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("there is no fault %s", name)
		}
		return try(ctx, r, random, all[i])
	}}
}
