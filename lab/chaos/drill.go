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

	"github.com/google/uuid"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

// ask compares what outboxctl says of a judged round with what the judge knows. Only the round's
// poison may be missing on the bus, and outboxctl must tell an event's whole story.
func (r *round) ask(ctx context.Context, started time.Time, judged judge.Round) error {
	o := operator{round: r, from: started.UTC().Format(time.RFC3339)}
	poison, whole := 0, uuid.Nil
	for _, row := range judged.Rows {
		if strings.Contains(string(row.Data), poisonMark) {
			poison++
		} else if row.AggregateType == domain.AggregateType { // retention takes no car's events
			whole = row.ID
		}
	}
	if err := o.missing(ctx, poison); err != nil {
		return err
	}
	return o.whole(ctx, whole.String(), 1)
}

// drill plays the operator on the path that was just broken, with the operators' program. outboxctl
// must see a parked event and bring it back, see a loss that was made by hand and repair it, and
// tell where one event was.
func (r *round) drill(ctx context.Context) error {
	o := operator{round: r, from: time.Now().UTC().Add(-time.Second).Format(time.RFC3339)}
	fmt.Fprintln(r.config.Progress, "drill: outboxctl finds and repairs a parked event and a loss made by hand")
	if err := r.clients.warmUp(ctx); err != nil {
		return err
	}

	// The bus refuses an event, until its cause is mended.
	const mark = "drill-"
	refuse := awslocal.Fault{Service: "events", Operation: "PutEvents", Match: mark, Kind: awslocal.EntryError, Code: "MalformedDetail"}
	if err := r.listener.On(ctx, mark, refuse); err != nil {
		return err
	}
	parked := r.clients.create(ctx, mark)
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 1)); err != nil {
		return fmt.Errorf("audit with a parked event: %w", err)
	}
	if err := r.listener.Off(ctx, mark); err != nil {
		return err
	}
	if _, err := o.run(ctx, 0, "redrive", "--all", "--wait", "0s"); err != nil {
		return err
	}
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 0)); err != nil {
		return fmt.Errorf("audit after redrive: %w", err)
	}

	// A slot that is moved past an event by hand is what no part of the path does.
	if err := r.Relay.TakeDown(ctx); err != nil {
		return err
	}
	defer r.release()
	lost := r.clients.create(ctx, "")
	err := r.await(ctx, "the slot to be moved past an event",
		r.holds("SELECT end_lsn IS NOT NULL FROM pg_replication_slot_advance($1, pg_current_wal_lsn())", r.Slot()))
	if err != nil {
		return err
	}
	r.release()
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 1)); err != nil {
		return fmt.Errorf("audit after a loss made by hand: %w", err)
	}
	if _, err := o.run(ctx, 0, "replay", "--aggregate-id", lost); err != nil {
		return err
	}
	if err := errors.Join(r.settle(ctx), o.missing(ctx, 0)); err != nil {
		return fmt.Errorf("audit after replay: %w", err)
	}
	var id string
	err = r.await(ctx, "the parked event's row", func(ctx context.Context) error {
		return r.pool.QueryRow(ctx, "SELECT id::text FROM outbox WHERE aggregate_id = $1", parked).Scan(&id)
	})
	if err != nil {
		return err
	}
	return o.whole(ctx, id, 2) // put by the relay, and by redrive
}

// operator runs outboxctl.
type operator struct {
	*round
	from string // of the audits' window
}

// run returns what outboxctl printed. It returns an error if the exit code is not want.
func (o operator) run(ctx context.Context, want int, args ...string) ([]byte, error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, o.config.Outboxctl, append(args, "--json")...)
	cmd.Env = slices.Concat(o.env, o.OperatorEnv())
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("running outboxctl: %w", err)
	}
	// Exit code 1 is also that of an outboxctl that could not do its work. It then prints no JSON.
	if code := cmd.ProcessState.ExitCode(); code != want || !json.Valid(out.Bytes()) {
		return nil, fmt.Errorf("outboxctl %s: exit code %d, expected %d: %s %s", strings.Join(args, " "), code, want, out.String(), problems.String())
	}
	return out.Bytes(), nil
}

// missing audits everything since o.from.
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

// whole requires that outboxctl finds an event's row, at least that many puts of it on the stream,
// and its entry on the bus.
func (o operator) whole(ctx context.Context, id string, puts int) error {
	out, err := o.run(ctx, 0, "where", id)
	if err != nil {
		return err
	}
	var story struct {
		Row    *struct{}
		Stream []struct{ SequenceNumber string }
		Bus    []struct{}
	}
	if err := json.Unmarshal(out, &story); err != nil {
		return err
	}
	if story.Row == nil || len(story.Stream) < puts || len(story.Bus) < 1 {
		return fmt.Errorf("outboxctl where %s: %s", id, out)
	}
	return nil
}
