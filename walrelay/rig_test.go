package walrelay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

const stream = "outbox"

// rig is a database, a stream, and relays between them.
type rig struct {
	db      *pgtest.DB
	aws     *awslocal.Server
	kinesis *kinesis.Client
	url     string // of the AWS listener
	slot    string
	next    []*string // iterator per shard
	read    []outbox.Record
	ids     map[uuid.UUID]bool // of read
	log     *labtest.Log       // of the relays
	env     []string           // of the programs instead of DATABASE_URL
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := pgtest.New(t)
	var slot string
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT 'relay_' || oid FROM pg_database WHERE datname = current_database()").Scan(&slot))
	return newRigOn(t, db, slot)
}

func newRigOn(t *testing.T, db *pgtest.DB, slot string) *rig {
	t.Helper()
	server, config := awstest.Start(t, awslocal.Config{Streams: []awslocal.Stream{{Name: stream, Shards: 2}}})
	return &rig{db: db, aws: server, kinesis: kinesis.NewFromConfig(config), url: *config.BaseEndpoint, slot: slot, log: labtest.NewLog(t)}
}

func (r *rig) logged() string { return r.log.String() }

func (r *rig) config(t *testing.T) walrelay.Config {
	t.Helper()
	return walrelay.Config{Database: login(t, r.db.URL), Stream: stream, Slot: r.slot, Kinesis: patient{r.kinesis}, Log: slog.New(slog.NewTextHandler(r.log, nil))}
}

// patient is a Kinesis whose calls end with their answer, or when the relay ends. The relay itself gives a call up after 10 s. On a
// busy machine one may take longer, and then its records come twice.
type patient struct{ walrelay.Kinesis }

func (k patient) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	return k.Kinesis.PutRecords(call, in, options...)
}

func login(t *testing.T, url string) *rdsdb.Login {
	t.Helper()
	login, err := rdsdb.NewURLLogin(url, "walrelay")
	require.NoError(t, err)
	return login
}

// proxy puts itself between the relays to come and the server.
func (r *rig) proxy(t *testing.T, pass func(_ *labtest.Proxy, fromServer bool, piece []byte) []byte) *labtest.Proxy {
	t.Helper()
	config := r.db.Pool.Config().ConnConfig
	address := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	proxy := labtest.NewProxy(t, address, pass)
	r.db.URL = strings.Replace(r.db.URL, address, proxy.Address, 1)
	return proxy
}

// relay returns a relay that waits for every answer when it begins and when it ends. With the times of New a busy machine would decide
// whether its first session comes to streaming, and whether it confirms what is on the stream.
func (r *rig) relay(t *testing.T) *walrelay.Relay {
	t.Helper()
	return relayOf(t, r.config(t))
}

func relayOf(t *testing.T, config walrelay.Config) *walrelay.Relay {
	t.Helper()
	relay, err := walrelay.New(config)
	require.NoError(t, err)
	relay.SetupFor(labtest.Patience)
	relay.DrainFor(labtest.Patience)
	return relay
}

// start runs a relay in this process. The function it returns stops it and waits. The test's end stops it, too.
func (r *rig) start(t *testing.T) (stop func() error) {
	t.Helper()
	relay := r.relay(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// run starts a relay and returns what Run ends with.
func (r *rig) run(t *testing.T) <-chan error {
	t.Helper()
	return r.runWith(t, func(*walrelay.Relay) {})
}

func (r *rig) runWith(t *testing.T, set func(*walrelay.Relay)) <-chan error {
	t.Helper()
	relay := r.relay(t)
	set(relay)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		ended <- relay.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ended
}

// setupError waits for the relay to end with one.
func (r *rig) setupError(t *testing.T, ended <-chan error) (setup *walrelay.SetupError) {
	t.Helper()
	r.eventually(t, "the relay to end", func() bool {
		select {
		case err := <-ended:
			require.ErrorAs(t, err, &setup)
			return true
		default:
			return false
		}
	})
	return setup
}

// program builds walrelay. With tag failpoints it is one that FAILPOINT can kill.
func program(t *testing.T, tags ...string) string {
	t.Helper()
	return labtest.Program(t, "walrelay/cmd/walrelay", tags...)
}

// spawn runs the program. kill ends it with SIGKILL.
func (r *rig) spawn(t *testing.T) (kill func()) {
	t.Helper()
	cmd, dead := r.command(t, program(t))
	return func() {
		_ = cmd.Process.Kill()
		<-dead
	}
}

// spawnWithFailpoint runs the program, which dies at the given hit of the point. dead is closed after it has died.
func (r *rig) spawnWithFailpoint(t *testing.T, point failpoint.Point, hit int) (dead <-chan struct{}) {
	t.Helper()
	_, dead = r.command(t, program(t, "failpoints"), fmt.Sprintf("FAILPOINT=%s:%d", point, hit))
	return dead
}

func (r *rig) command(t *testing.T, program string, env ...string) (*exec.Cmd, <-chan struct{}) {
	t.Helper()
	cmd := exec.Command(program)
	database := r.env
	if database == nil {
		database = []string{"DATABASE_URL=" + r.db.URL}
	}
	cmd.Env = append(slices.Concat(env, database), "STREAM_NAME="+stream, "SLOT_NAME="+r.slot, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_ENDPOINT_URL_KINESIS="+r.url, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+r.url)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	require.NoError(t, cmd.Start())
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-dead
	})
	return cmd, dead
}

// append writes one event per (aggregate, version) pair, aggregates × versions, all in one transaction.
func (r *rig) append(t *testing.T, prefix string, aggregates, fromVersion, toVersion int) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), r.db.Pool, func(tx pgx.Tx) error {
		var batch outbox.Batch
		for version := fromVersion; version <= toVersion; version++ {
			for a := range aggregates {
				if err := outbox.Append(t.Context(), &batch, event(fmt.Sprintf("%s%d", prefix, a), version)); err != nil {
					return err
				}
			}
		}
		return batch.Send(t.Context(), tx)
	}))
}

// fill writes aggregates × versions rows in one transaction. It is quick, because the server makes the rows.
func (r *rig) fill(t *testing.T, prefix string, aggregates, versions int) {
	t.Helper()
	r.exec(t, fillSQL, prefix, aggregates, versions)
}

const fillSQL = `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
	SELECT gen_random_uuid(), 'Car', $1 || a, v, 'CarUpdated', jsonb_build_object('version', v)
	FROM generate_series(1, $3::int) AS v, generate_series(1, $2::int) AS a`

func event(aggregateID string, version int) outbox.Event {
	return outbox.Event{
		ID: uuid.Must(uuid.NewV7()), AggregateType: "Car", AggregateID: aggregateID, AggregateVersion: int64(version),
		Type: "CarUpdated", Data: json.RawMessage(fmt.Sprintf(`{"version":%d}`, version)),
	}
}

// arrived returns all records on the stream, shard by shard. It reads on from its last position.
func (r *rig) arrived(t require.TestingT) []outbox.Record {
	ctx := context.Background()
	if r.next == nil {
		r.ids = map[uuid.UUID]bool{}
		shards, err := r.kinesis.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(stream)})
		require.NoError(t, err)
		for _, shard := range shards.Shards {
			iterator, err := r.kinesis.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
				StreamName: aws.String(stream), ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
			})
			require.NoError(t, err)
			r.next = append(r.next, iterator.ShardIterator)
		}
	}
	for shard := range r.next {
		for more := true; more; {
			page, err := r.kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: r.next[shard]})
			require.NoError(t, err)
			for _, raw := range page.Records {
				record, skip, err := outbox.ParseRecord(raw.Data)
				require.NoError(t, err)
				require.Equal(t, outbox.SkipNothing, skip)
				require.Equal(t, record.Row.AggregateID, *raw.PartitionKey)
				r.read = append(r.read, record)
				r.ids[record.Row.ID] = true
			}
			more, r.next[shard] = len(page.Records) > 0, page.NextShardIterator
		}
	}
	return r.read
}

// distinct counts the different events that are on the stream.
func (r *rig) distinct(t *testing.T) int {
	t.Helper()
	r.arrived(t)
	return len(r.ids)
}

// await waits until n different events are on the stream and returns everything that is there.
func (r *rig) await(t *testing.T, n int) []outbox.Record {
	t.Helper()
	r.eventually(t, fmt.Sprintf("%d events on the stream", n), func() bool { return r.distinct(t) >= n })
	return r.read
}

func (r *rig) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	labtest.Eventually(t, what, condition)
}

// heldUp waits until n different events are on the stream, which are all that the fault lets through, and the fault
// has struck. The one does not imply the other. The struck record may be in a call that is still on its way.
func (r *rig) heldUp(t *testing.T, fault *awslocal.Active, n int) {
	t.Helper()
	r.eventually(t, fmt.Sprintf("the %d events that Kinesis takes, and a strike", n), func() bool {
		return r.distinct(t) == n && fault.Struck() > 0
	})
}

// requireWhole requires that the stream has every row of the table and nothing else, that first arrivals of
// each aggregate are in version order, and that duplicates are the same event.
func (r *rig) requireWhole(t *testing.T, records []outbox.Record) {
	t.Helper()
	rows, err := r.db.Pool.Query(t.Context(), "SELECT * FROM outbox")
	require.NoError(t, err)
	table, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbgen.Outbox])
	require.NoError(t, err)
	want := map[uuid.UUID]dbgen.Outbox{}
	for _, row := range table {
		row.CreatedAt = row.CreatedAt.UTC()
		want[row.ID] = row
	}
	seen := map[uuid.UUID]bool{}
	version := map[string]int64{}
	for _, record := range records {
		row, committed := want[record.Row.ID]
		if !committed || !reflect.DeepEqual(row, record.Row) { // require.Equal takes its time, 200,000 times
			require.Equal(t, row, record.Row, "what arrived is not what was committed")
		}
		if !seen[row.ID] {
			if version[row.AggregateID]++; version[row.AggregateID] != row.AggregateVersion {
				require.Equal(t, version[row.AggregateID], row.AggregateVersion, "first arrivals of %s, in order: %v", row.AggregateID, versionsOf(records, row.AggregateID))
			}
		}
		seen[row.ID] = true
	}
	require.Len(t, seen, len(want))
	require.NotContains(t, r.logged(), "msg=reordered", "the numbers of this listener always grow")
}

// slotState returns the slot's confirmed position and whether it exists.
func (r *rig) slotState(t *testing.T) (confirmed string, exists bool) {
	t.Helper()
	err := r.db.Pool.QueryRow(t.Context(), "SELECT coalesce(confirmed_flush_lsn::text, '') FROM pg_replication_slots WHERE slot_name = $1", r.slot).Scan(&confirmed) // NULL while it is being copied
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false
	}
	require.NoError(t, err)
	return confirmed, true
}

// streaming waits until a relay streams from the slot, and returns its backend's process id.
func (r *rig) streaming(t *testing.T) (pid int) {
	t.Helper()
	r.eventually(t, "a relay that streams", func() bool {
		err := r.db.Pool.QueryRow(t.Context(), `SELECT r.pid FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
			WHERE s.slot_name = $1 AND r.state IN ('streaming', 'catchup')`, r.slot).Scan(&pid)
		return err == nil
	})
	return pid
}

func (r *rig) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := r.db.Pool.Exec(context.WithoutCancel(t.Context()), sql, args...) // cleanups, too
	require.NoError(t, err)
}

func (r *rig) database(t *testing.T) string {
	t.Helper()
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	return pgx.Identifier{config.Database}.Sanitize()
}

// versionsOf returns the versions of an aggregate in the order of their arrival. A version that is missing and one that came late look
// alike at first.
func versionsOf(records []outbox.Record, aggregateID string) (versions []int64) {
	for _, record := range records {
		if record.Row.AggregateID == aggregateID {
			versions = append(versions, record.Row.AggregateVersion)
		}
	}
	return versions
}
