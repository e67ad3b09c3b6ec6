package view

import (
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

// The page shows the same story as outboxctl in a terminal.
func TestThePageShowsWhatWherePrints(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir())
	conn := r.connect(t)
	r.path.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "MalformedDetail", Match: `"name":"Argo"`})
	parked := insert(t, conn, "now()")
	r.requireTotals(t, totals{Committed: 1, Parked: 1})
	r.post(t)
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 2, OnBus: 1, Parked: 1})
	published := r.frame().Events[0].ID
	r.path.Relay.Stop(t.Context())
	waiting := insert(t, conn, "now()")

	for id, lastHop := range map[uuid.UUID]string{published: "⑥", parked: "⑤", waiting: "②"} {
		var text, printed string
		labtest.Eventually(t, "both to say the same: the server's own WAL moves the slot's bytesBehind", func() bool {
			_, text = r.where(t, id)
			printed = r.printed(t, id)
			return equalJSON(t, text, printed)
		})
		story, _ := r.where(t, id)
		require.Equal(t, lastHop, story.LastHop, text)
	}

	// The page sees a message that somebody else has received, and hides none from others.
	out, err := r.path.Services.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &r.path.Services.FailureQueueURL, VisibilityTimeout: 600})
	require.NoError(t, err)
	require.Len(t, out.Messages, 1)
	story, _ := r.where(t, parked)
	require.Len(t, story.Parked, 1)
	require.False(t, story.Unseen)

	story, _ = r.where(t, uuid.New())
	require.Equal(t, "-", story.LastHop)
}

// printed returns what `outboxctl where` prints.
func (r *rig) printed(t *testing.T, id uuid.UUID) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), labtest.Program(t, "outboxctl/cmd/outboxctl"), "where", "--json", id.String())
	cmd.Dir, cmd.Env = t.TempDir(), r.path.OperatorEnv()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // 1: it is not on the bus
		require.Equal(t, 1, exit.ExitCode(), "%s", exit.Stderr)
		require.Empty(t, exit.Stderr)
	} else {
		require.NoError(t, err)
	}
	return string(out)
}

func equalJSON(t *testing.T, one, other string) bool {
	t.Helper()
	var a, b any
	require.NoError(t, json.Unmarshal([]byte(one), &a))
	require.NoError(t, json.Unmarshal([]byte(other), &b))
	return reflect.DeepEqual(a, b)
}

// A version is lost behind the bus. The next one is held, and the card, the list and the drawer say so until it is replayed.
func TestThePageShowsWhatTheSubscriberHolds(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, t.TempDir(), func(c *local.Config) { c.InOrder = true })
	car := r.post(t)
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 1, OnBus: 1})
	require.Equal(t, heldState{}, r.frame().Held)
	losing := r.path.AWS.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Lose})
	r.send(t, http.MethodPatch, "/cars/"+car, domain.Change(1, "lost"))
	r.requireTotals(t, totals{Cars: 1, Counted: 1, Committed: 2, OnBus: 2})
	require.Equal(t, 1, losing.Struck())
	losing.Off()
	r.send(t, http.MethodPatch, "/cars/"+car, domain.Change(2, "early"))

	labtest.Eventually(t, "the event to be held", func() bool { return r.frame().Held.Events == 1 })
	f := r.frame()
	require.NotEmpty(t, f.Held.Since)
	var early uuid.UUID
	for _, e := range f.Events {
		require.Equal(t, e.Version == 3, e.Held)
		if e.Held {
			early = e.ID
		}
	}
	story, text := r.where(t, early)
	require.Len(t, story.Held, 1)
	require.Equal(t, "carstats", story.Held[0].Subscriber)
	require.EqualValues(t, 2, story.Held[0].WaitsFor)
	require.True(t, equalJSON(t, text, r.printed(t, early)), text)
	// On a busy machine the database may not answer in time, and the record then says so.
	var all seen
	labtest.Eventually(t, "the subscriber's word about the event", func() bool {
		all, _ = r.seen(t, early)
		return all.Subscriber.Deliveries[0].Answer == "taken, not counted"
	})
	require.Empty(t, all.Subscriber.CountedAt)

	replay := exec.CommandContext(t.Context(), labtest.Program(t, "outboxctl/cmd/outboxctl"), "replay", "--aggregate-id", car, "--from-version", "2", "--to-version", "2")
	replay.Dir, replay.Env = t.TempDir(), r.path.OperatorEnv()
	out, err := replay.CombinedOutput()
	require.NoError(t, err, "%s", out)
	labtest.Eventually(t, "the event to be counted", func() bool { return r.frame().Held == heldState{} })
	story, _ = r.where(t, early)
	require.Empty(t, story.Held)
	labtest.Eventually(t, "when the event was counted", func() bool {
		all, _ = r.seen(t, early)
		return all.Subscriber.CountedAt != ""
	})
}
