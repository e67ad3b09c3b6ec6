package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"rds-outbox-demo/lab/awslocal"
)

// drill plays the operator on the path that was just broken, with the program that operators have: outboxctl must see a parked event and
// bring it back, see a loss that was made by hand and repair it, and tell where one event was.
func (p *path) drill(ctx context.Context, c Config, rounds int) error {
	h := &history{round: rounds + 1}
	r := &round{path: p, history: h, clients: newClients(p.apiURL, h)}
	o := operator{round: r, program: c.Outboxctl, from: time.Now().UTC().Add(-time.Second).Format(time.RFC3339)}
	fmt.Fprintln(c.Progress, "drill: outboxctl finds and repairs a parked event and a loss made by hand")
	if err := r.clients.warmUp(ctx); err != nil {
		return err
	}

	// The bus refuses an event, until its cause is mended.
	off, err := r.refuse(ctx, "drill-")
	if err != nil {
		return err
	}
	parked := r.clients.create(ctx, "drill-")
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 1)); err != nil {
		return fmt.Errorf("audit with a parked event: %w", err)
	}
	off()
	if _, err := o.run(ctx, 0, "redrive", "--all"); err != nil {
		return err
	}
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 0)); err != nil {
		return fmt.Errorf("audit after redrive: %w", err)
	}

	// A slot that is moved past an event by hand is what no part of the path does.
	if err := r.relay.takeDown(ctx); err != nil {
		return err
	}
	defer r.relay.release()
	lost := r.clients.create(ctx, "")
	err = r.await(ctx, "the slot to be moved past an event", func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", slotName)
		return err
	})
	if err != nil {
		return err
	}
	r.relay.release()
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 1)); err != nil {
		return fmt.Errorf("audit after a loss made by hand: %w", err)
	}
	if _, err := o.run(ctx, 0, "replay", "--aggregate-id", lost); err != nil {
		return err
	}
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 0)); err != nil {
		return fmt.Errorf("audit after replay: %w", err)
	}
	return o.whole(ctx, parked)
}

// refuse makes the bus refuse events with mark in their data. The listener is not killed while it lasts.
func (r *round) refuse(ctx context.Context, mark string) (off func(), err error) {
	id, err := r.faults.Add(ctx, awslocal.Fault{
		Service: "events", Operation: "PutEvents", Match: mark, Kind: awslocal.EntryError, Code: "MalformedDetail",
	})
	return func() { _ = r.faults.Off(ctx, id) }, err
}

// operator runs outboxctl.
type operator struct {
	*round
	program string
	from    string // of the audits' window
}

// run returns what outboxctl printed; an error if its exit code is another.
func (o operator) run(ctx context.Context, want int, args ...string) ([]byte, error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, o.program, append(args, "--json")...)
	cmd.Env = slices.Concat(o.env, []string{"DATABASE_URL=" + o.postgres.URL(), "BUS_LOG_GROUP=" + logGroup})
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != want {
		return nil, fmt.Errorf("outboxctl %s: exit code %d, not %d (%w): %s", strings.Join(args, " "), code, want, err, problems.String())
	}
	return out.Bytes(), nil
}

// missing audits everything since the drill began.
func (o operator) missing(ctx context.Context, want int) error {
	code := min(want, 1)
	out, err := o.run(ctx, code, "audit", "--from", o.from, "--grace", "0s")
	if err != nil {
		return err
	}
	var audit struct {
		Committed           int
		Missing, OutOfOrder struct{ Count int }
	}
	if err := json.Unmarshal(out, &audit); err != nil {
		return err
	}
	if audit.Missing.Count != want || audit.OutOfOrder.Count != 0 || audit.Committed < hotCars {
		return fmt.Errorf("outboxctl audit found %s", out)
	}
	return nil
}

// whole asks where the first event of a car is that was parked and redriven: it was on the stream twice and on the bus once.
func (o operator) whole(ctx context.Context, car string) error {
	var id string
	err := o.await(ctx, "the event's row", func(ctx context.Context) error {
		return o.pool.QueryRow(ctx, "SELECT id::text FROM outbox WHERE aggregate_id = $1", car).Scan(&id)
	})
	if err != nil {
		return err
	}
	out, err := o.run(ctx, 0, "where", id)
	if err != nil {
		return err
	}
	var story struct {
		Row    *struct{ AggregateID string }
		Stream []struct{ SequenceNumber string }
		Bus    []struct{}
	}
	if err := json.Unmarshal(out, &story); err != nil {
		return err
	}
	if story.Row == nil || story.Row.AggregateID != car || len(story.Stream) < 2 || len(story.Bus) < 1 {
		return fmt.Errorf("outboxctl where %s: %s", id, out)
	}
	return nil
}
