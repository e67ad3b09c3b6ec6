package outboxctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

const (
	testStream   = "outbox"
	testBus      = "outbox-bus"
	testLogGroup = "/aws/events/outbox-bus"
	testFailures = "failures"
	testDiscards = "discards"
)

// rig is a database, the AWS services, and the set-up that leads to them.
type rig struct {
	db     *pgtest.DB
	aws    *awslocal.Server
	config aws.Config
	setup  *Setup
	slot   string
}

// newRig starts both. edit changes what exists on the AWS side.
func newRig(t *testing.T, edit ...func(*awslocal.Config)) *rig {
	t.Helper()
	conf := awslocal.Config{
		Streams: []awslocal.Stream{{Name: testStream, Shards: 2}, {Name: elsewhere, Shards: 1}},
		Buses:   []string{testBus},
		BusLogs: map[string]string{testLogGroup: testBus},
		Queues:  []string{testFailures, testDiscards},
	}
	for _, f := range edit {
		f(&conf)
	}
	r := &rig{db: pgtest.New(t)}
	r.aws, r.config = awstest.Start(t, conf)
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT 'outboxctl_' || oid FROM pg_database WHERE datname = current_database()").Scan(&r.slot))
	r.setup = &Setup{
		DatabaseURL: r.db.URL, AWS: r.config, Stream: testStream, Slot: r.slot, Bus: testBus, BusLogGroup: testLogGroup, RetentionDays: 14,
		FailureQueue: awslocal.QueueURL(*r.config.BaseEndpoint, testFailures),
		DiscardQueue: awslocal.QueueURL(*r.config.BaseEndpoint, testDiscards),
	}
	return r
}

// result is how a run of the program ended.
type result struct {
	out, err string
	code     int
}

// run runs a command on the rig. A redrive does not wait for what comes back, unless args say so.
func (r *rig) run(t *testing.T, args ...string) result {
	t.Helper()
	if args[0] == "redrive" && !slices.Contains(args, "--wait") {
		args = append(slices.Clone(args), "--wait", "0s")
	}
	var out, errs bytes.Buffer
	code := Run(t.Context(), args, func(context.Context, string) (*Setup, error) { return r.setup, nil }, &out, &errs)
	return result{out.String(), errs.String(), code}
}

// lastLine is what a reader sees last.
func (r result) lastLine() string {
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	return lines[len(lines)-1]
}

// decode reads the output of a run with --json.
func decode[T any](t *testing.T, r result) T {
	t.Helper()
	var value T
	require.NoError(t, json.Unmarshal([]byte(r.out), &value), "%s\n%s", r.out, r.err)
	return value
}

// event is a new one of an aggregate.
func event(aggregateID string, version int) outbox.Event {
	return outbox.Event{
		ID: uuid.Must(uuid.NewV7()), AggregateType: "Car", AggregateID: aggregateID, AggregateVersion: int64(version),
		Type: "CarUpdated", Data: json.RawMessage(fmt.Sprintf(`{"version":%d}`, version)),
	}
}

// commit writes the events in one transaction.
func (r *rig) commit(t *testing.T, events ...outbox.Event) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		for _, e := range events {
			if err := outbox.Append(t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	}))
}

// createdAt is the row's.
func (r *rig) createdAt(t *testing.T, e outbox.Event) time.Time {
	t.Helper()
	var at time.Time
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT created_at FROM outbox WHERE id = $1", e.ID).Scan(&at))
	return at
}

// backdate makes the rows older, as if they had been written then.
func (r *rig) backdate(t *testing.T, age time.Duration, events ...outbox.Event) {
	t.Helper()
	for _, e := range events {
		_, err := r.db.Pool.Exec(t.Context(), "UPDATE outbox SET created_at = now() - $2::interval WHERE id = $1", e.ID, age)
		require.NoError(t, err)
	}
}

// publish puts the event on the bus as the consumer does; resources as those of a replay.
func (r *rig) publish(t *testing.T, e outbox.Event, createdAt time.Time, resources ...string) {
	t.Helper()
	// The members are in the consumer's order. With a large payload, Logs Insights finds what is
	// before it, and not the timestamp after it.
	detail, err := json.Marshal(struct {
		AggregateID      string          `json:"aggregateId"`
		AggregateType    string          `json:"aggregateType"`
		AggregateVersion int64           `json:"aggregateVersion"`
		EventID          uuid.UUID       `json:"eventId"`
		EventData        json.RawMessage `json:"eventData"`
		Timestamp        string          `json:"timestamp"`
	}{e.AggregateID, e.AggregateType, e.AggregateVersion, e.ID, e.Data, outbox.FormatTime(createdAt)})
	require.NoError(t, err)
	r.put(t, "outbox."+strings.ToLower(e.AggregateType), e.Type, string(detail), resources...)
}

func (r *rig) put(t *testing.T, source, detailType, detail string, resources ...string) {
	t.Helper()
	out, err := eventbridge.NewFromConfig(r.config).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []eventtypes.PutEventsRequestEntry{{
		EventBusName: aws.String(testBus), Source: &source, DetailType: &detailType, Detail: &detail, Resources: resources,
	}}})
	require.NoError(t, err)
	require.Zero(t, out.FailedEntryCount, "%v", out.Entries)
}

// startRelay runs walrelay and returns once it streams. Events that are committed from then on have
// a time of commit.
func (r *rig) startRelay(t *testing.T) (stop func()) {
	t.Helper()
	return r.startRelayTo(t, testStream)
}

// elsewhere is the stream of a relay that only has to move the slot on. The test's stream is left
// to the test.
const elsewhere = "elsewhere"

func (r *rig) startRelayTo(t *testing.T, stream string) (stop func()) {
	t.Helper()
	database, err := rdsdb.NewURLLogin(r.db.URL, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{
		Database: database, Stream: stream, Slot: r.slot, Kinesis: kinesis.NewFromConfig(r.config), Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		// Else the database could not be dropped.
		for active := true; active; time.Sleep(10 * time.Millisecond) {
			err := r.db.Pool.QueryRow(context.WithoutCancel(ctx), "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)", r.slot).Scan(&active)
			active = active && err == nil
		}
	})
	t.Cleanup(stop)
	r.eventually(t, "a relay that streams", func() bool {
		var streams bool
		// While the load makes the slot, it is active, too.
		err := r.db.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_replication AS reader JOIN pg_replication_slots AS slot ON slot.active_pid = reader.pid
			WHERE slot.slot_name = $1 AND reader.state IN ('streaming', 'catchup'))`, r.slot).Scan(&streams)
		return err == nil && streams
	})
	return stop
}

// awaitOnStream waits until the events are on the stream.
func (r *rig) awaitOnStream(t *testing.T, events ...outbox.Event) {
	t.Helper()
	reader := newStreamReader(r.setup)
	reader.pause = 0
	r.eventually(t, "the events on the stream", func() bool {
		found := map[uuid.UUID]bool{}
		shards, err := reader.shards(t.Context())
		require.NoError(t, err)
		for _, shard := range shards {
			require.NoError(t, reader.read(t.Context(), *shard.ShardId, position{at: time.Unix(0, 0)}, func(raw kinesistypes.Record) error {
				record, _, err := outbox.ParseRecord(raw.Data)
				found[record.Row.ID] = err == nil
				return nil
			}))
		}
		return !slices.ContainsFunc(events, func(e outbox.Event) bool { return !found[e.ID] })
	})
}

func (r *rig) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	labtest.Eventually(t, what, condition)
}
