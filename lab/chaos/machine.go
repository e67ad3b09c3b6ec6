package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/lab/faults"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/process"
)

// Processes are killed at any moment ...

var processTrials = []trial{
	{kind: "kill-api", try: func(ctx context.Context, r *round, _ *rand.Rand) error { return r.Processes.API.Kill(ctx) }},
	{kind: "kill-consumer", try: func(ctx context.Context, r *round, _ *rand.Rand) error { return r.Processes.Consumer.Kill(ctx) }},
	{kind: "kill-carstats", try: func(ctx context.Context, r *round, _ *rand.Rand) error { return r.Processes.CarStats.Kill(ctx) }},
	{kind: "kill-aws", try: func(ctx context.Context, r *round, _ *rand.Rand) error { return r.Processes.AWS.Kill(ctx) }},
	ofList("kill-relay", "kill-relay", killRelay),
	{kind: "kill-relay-unanswered", try: killUnanswered},
	{kind: "freeze-relay", try: freezeRelay},
	ofList("second-relay", "two-relays", secondRelay),
}

// killRelay kills the relay and leaves it down for a while. Commits go on, and their events wait in
// the WAL.
func killRelay(ctx context.Context, _ *round, random *rand.Rand, kill *faults.Fault) error {
	err := kill.Strike(ctx)
	if err == nil {
		err = sleep(ctx, between(random, 200*time.Millisecond, 1500*time.Millisecond))
	}
	return errors.Join(err, kill.Mend(context.WithoutCancel(ctx)))
}

// killUnanswered kills the relay when Kinesis has accepted nothing for longer than a status
// interval. If the relay has confirmed too much meanwhile, that is lost.
func killUnanswered(ctx context.Context, r *round, _ *rand.Rand) error {
	return r.during(ctx, faults.KinesisDown, nil, func(refused *ruleInForce) error {
		if err := refused.last(ctx, 2500*time.Millisecond); err != nil {
			return err
		}
		return r.Relay.Supervisor.Kill(ctx)
	})
}

// freezeRelay stops it for longer than the server waits for an answer.
func freezeRelay(ctx context.Context, r *round, _ *rand.Rand) error {
	relay, err := r.Relay.Process(ctx)
	if err != nil {
		return err
	}
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	relay.Signal(syscall.SIGSTOP)
	defer relay.Signal(syscall.SIGCONT)
	return r.await(ctx, "the server to give the relay up", r.slotActive(false))
}

// secondRelay lets a standby take the slot over from an active relay that is killed.
func secondRelay(ctx context.Context, r *round, random *rand.Rand, second *faults.Fault) (err error) {
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Mend(context.WithoutCancel(ctx))) }()
	if err := second.Strike(ctx); err != nil {
		return err
	}
	standby := r.SecondRelay.Log()
	if err := r.await(ctx, "the second relay to stand by", func(context.Context) error { return fileSays(standby, 0, local.SaysStandby) }); err != nil {
		return err
	}
	if err := r.Relay.TakeDown(ctx); err != nil {
		return err
	}
	defer r.release()
	// The slot cannot tell this, because for a moment the server takes the dead relay's session for
	// alive.
	streaming := func(context.Context) error { return fileSays(standby, 0, local.SaysStreaming) }
	if err := r.await(ctx, "the standby to take over", streaming); err != nil {
		return err
	}
	r.release() // now the first one stands by
	return sleep(ctx, between(random, 100*time.Millisecond, time.Second))
}

// fileSays looks for text behind the first bytes of a file.
func fileSays(path string, behind int64, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(content[behind:]), text) {
		return fmt.Errorf("%s does not say %q", filepath.Base(path), text)
	}
	return nil
}

// ... and exactly between two steps.

var failpointTrials = []trial{
	killAt(theAPI, failpoint.APIBeforeCommit, nil),
	killAt(theAPI, failpoint.APIInTransaction, nil),
	killAt(theAPI, failpoint.APIAfterCommit, nil),
	killAt(theRelay, failpoint.RelayBeforePut, nil),
	killAt(theRelay, failpoint.RelayAfterPut, nil),
	killAt(theRelay, failpoint.RelayBeforeConfirm, nil),
	killAt(theRelay, failpoint.RelayAfterConfirm, nil),
	killAt(theConsumer, failpoint.ConsumerBeforePublish, nil),
	killAt(theConsumer, failpoint.ConsumerAfterPublish, nil),
	killAt(theConsumer, failpoint.ConsumerBeforePark, armAndPark),
	killAt(theConsumer, failpoint.ConsumerAfterPark, armAndPark),
	killAt(theConsumer, failpoint.ConsumerBeforeAnswer, nil),
	// Only a relay without a slot loads.
	killAt(theRelay, failpoint.RelayBeforeSlotCopy, dropSlot),
	killAt(theRelay, failpoint.RelayAfterSlotCopy, dropSlot),
}

func theAPI(r *round) *process.Supervisor      { return r.Processes.API }
func theRelay(r *round) *process.Supervisor    { return r.Relay.Supervisor }
func theConsumer(r *round) *process.Supervisor { return r.Processes.Consumer }

// armAndPark gives the consumer a record to park.
func armAndPark(ctx context.Context, r *round, arm func() error) error {
	if err := arm(); err != nil {
		return err
	}
	return r.putPoison(ctx)
}

// dropSlot makes the relay load. If a failpoint of the load is armed while the relay runs, it can end a load that is still going on
// while we kill that relay, and nobody could tell whose kill it was.
func dropSlot(ctx context.Context, r *round, arm func() error) error { return r.DropSlot(ctx, arm) }

// killAt arms a failpoint. trigger calls arm, and brings the process to the point. nil means that the load does.
func killAt(of func(*round) *process.Supervisor, point failpoint.Point, trigger func(ctx context.Context, r *round, arm func() error) error) trial {
	return trial{kind: string(point), try: func(ctx context.Context, r *round, _ *rand.Rand) error {
		hits := of(r).Hits()
		file := filepath.Join(r.failpoints, string(point))
		arm := func() error { return os.WriteFile(file, nil, 0o600) }
		var err error
		if trigger == nil {
			err = arm()
		} else {
			err = trigger(ctx, r, arm)
		}
		if err != nil {
			return errors.Join(err, removeIfThere(file))
		}
		err = r.await(ctx, "the failpoint to be hit", func(context.Context) error {
			if _, err := os.Stat(file); err == nil {
				return errors.New("nothing came by")
			}
			if of(r).Hits() == hits {
				return errors.New("the process took the file and did not end")
			}
			return nil
		})
		return errors.Join(err, removeIfThere(file))
	}}
}

func removeIfThere(file string) error {
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
