package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/lab/awslocal"
)

// Processes are killed at any moment ...

var processFaults = []fault{
	{"kill-api", func(ctx context.Context, r *round, _ *rand.Rand) error { return r.api.kill(ctx) }},
	{"kill-consumer", func(ctx context.Context, r *round, _ *rand.Rand) error { return r.consumer.kill(ctx) }},
	{"kill-aws", func(ctx context.Context, r *round, _ *rand.Rand) error { return r.aws.kill(ctx) }},
	{"kill-relay", killRelay},
	{"kill-relay-unanswered", killUnanswered},
	{"freeze-relay", freezeRelay},
	{"second-relay", secondRelay},
}

// killRelay leaves it down for a while: commits go on, and their events wait in the WAL.
func killRelay(ctx context.Context, r *round, random *rand.Rand) error {
	if err := r.relay.takeDown(ctx); err != nil {
		return err
	}
	defer r.relay.release()
	return sleep(ctx, between(random, 200*time.Millisecond, 1500*time.Millisecond))
}

// killUnanswered kills the relay when Kinesis has accepted nothing for longer than a status interval: what the relay has confirmed
// meanwhile is lost if it has confirmed too much.
func killUnanswered(ctx context.Context, r *round, _ *rand.Rand) error {
	off, err := r.switchOn(ctx, awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Status: 500}, nil)
	if err != nil {
		return err
	}
	defer off()
	if err := sleep(ctx, 2500*time.Millisecond); err != nil {
		return err
	}
	return r.relay.kill(ctx)
}

// freezeRelay stops it for longer than the server waits for an answer.
func freezeRelay(ctx context.Context, r *round, _ *rand.Rand) error {
	relay, err := r.relay.running(ctx)
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
func secondRelay(ctx context.Context, r *round, random *rand.Rand) error {
	config := r.relayConfig
	output, err := os.Create(filepath.Join(r.dir, "standby.log"))
	if err != nil {
		return err
	}
	defer output.Close()
	config.Output = output
	if err := r.await(ctx, "the relay to stream", r.slotActive(true)); err != nil {
		return err
	}
	standby := startMember("standby", config, r.log)
	defer standby.stop()
	waiting := func(context.Context) error { return fileSays(output.Name(), "standby: another relay") }
	if err := r.await(ctx, "the second relay to stand by", waiting); err != nil {
		return err
	}
	if err := r.relay.takeDown(ctx); err != nil {
		return err
	}
	defer r.relay.release()
	if err := r.await(ctx, "the standby to take over", r.slotActive(true)); err != nil {
		return err
	}
	r.relay.release() // now the first one stands by
	return sleep(ctx, between(random, 100*time.Millisecond, time.Second))
}

func fileSays(path, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(content), text) {
		return fmt.Errorf("%s does not say %q", filepath.Base(path), text)
	}
	return nil
}

func (r *round) slotActive(want bool) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := r.slot(ctx)
		if err == nil && s.active != want {
			err = fmt.Errorf("slot active: %t", s.active)
		}
		return err
	}
}

// ... and exactly between two steps.

var failpointFaults = []fault{
	killAt(failpoint.APIBeforeCommit, nil),
	killAt(failpoint.APIAfterCommit, nil),
	killAt(failpoint.RelayBeforePut, nil),
	killAt(failpoint.RelayAfterPut, nil),
	killAt(failpoint.RelayBeforeConfirm, nil),
	killAt(failpoint.RelayAfterConfirm, nil),
	killAt(failpoint.ConsumerBeforePublish, nil),
	killAt(failpoint.ConsumerAfterPublish, nil),
	killAt(failpoint.ConsumerBeforePark, (*round).putPoison),
	killAt(failpoint.ConsumerAfterPark, (*round).putPoison),
	killAt(failpoint.ConsumerBeforeAnswer, nil),
	// Only a relay without a slot loads.
	killAt(failpoint.RelayBeforeSlotCopy, (*round).dropSlot),
	killAt(failpoint.RelayAfterSlotCopy, (*round).dropSlot),
}

// killAt arms a failpoint in the running process. trigger brings the process there if the load does not.
func killAt(point failpoint.Point, trigger func(*round, context.Context) error) fault {
	return fault{string(point), func(ctx context.Context, r *round, _ *rand.Rand) error {
		file := filepath.Join(r.failpoints, string(point))
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
		if trigger != nil {
			if err := trigger(r, ctx); err != nil {
				return errors.Join(err, os.Remove(file))
			}
		}
		err := r.await(ctx, "the failpoint to be hit", func(context.Context) error {
			if _, err := os.Stat(file); err == nil {
				return errors.New("nothing came by")
			}
			return nil // the process removed it and is dead
		})
		if err != nil && os.Remove(file) == nil {
			return err
		}
		return nil
	}}
}
