// Package compare_test sends one stream of events through the ways in which relays react to a
// refused record (`make compare`), and lets lab/judge say what each loses, repeats and reorders.
//
// In: a PostgreSQL with a backlog of EVENTS rows of 200 aggregates, a slot for each strategy, and
// SEED, which draws the refusals. Out: a table. The test fails if walrelay loses or reorders an
// event, or sends more than 1.02 times the rows.
//
// With the build tag peers it also runs real relays beside walrelay (`make peers`).
package compare_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

const (
	stream     = "outbox"
	aggregates = 200
	// throttledShare is the share of calls that Kinesis refuses as a whole.
	throttledShare = 0.02
	// maxAmplification is 1 for each row, 0.01 for the refused ones, and as much again for the draw.
	maxAmplification = 1.02
)

// result is what one strategy made of the stream.
type result struct {
	strategy  string
	verdict   judge.Verdict
	sent      int
	refused   int
	throttled int
	took      time.Duration
}

func (r result) amplification() float64 { return float64(r.sent) / float64(r.verdict.Events) }

func TestCompare(t *testing.T) {
	t.Parallel()
	events, seed := number(t, "EVENTS", 4000), number(t, "SEED", 1)
	require.True(t, events >= 2000 && events%aggregates == 0, "EVENTS is %d: it must be 2000 or more, in steps of %d", events, aggregates)
	b := newBacklog(t, events, seed)
	ours := b.run(t, strategy{name: "walrelay"})
	results := []result{ours}
	for _, s := range strategies {
		results = append(results, b.run(t, s))
	}
	require.NoError(t, write(results, events, seed))

	require.Zero(t, ours.verdict.Lost, "walrelay: missing")
	require.Zero(t, ours.verdict.Reordered, "walrelay: out of order")
	require.LessOrEqual(t, ours.amplification(), maxAmplification, "walrelay: records sent, divided by rows")
	// A comparison that finds nothing wrong with the others would not find it with us.
	for _, other := range results[1:] {
		require.Equal(t, ours.refused, other.refused, "%s: the drawn refusals", other.strategy)
		require.NotZero(t, other.verdict.Reordered+other.verdict.Lost, "%s: nothing found", other.strategy)
	}
	for _, r := range results {
		require.Zero(t, r.verdict.Wrong, "%s: %v", r.strategy, r.verdict.Violations)
	}
}

// write prints the table. The tests of the other packages hide it, unless they run with -v.
func write(results []result, events, seed int) error {
	fmt.Fprintf(os.Stdout, "compare: %d rows of %d aggregates, %g %% of the records refused once, %g %% of the calls throttled, SEED=%d\n\n",
		events, aggregates, 100*refusedShare, 100*throttledShare, seed)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STRATEGY\tMISSING\tDUPLICATES\tOUT OF ORDER\tAMPLIFICATION\tREFUSED\tTHROTTLED\tTIME")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%.3f\t%d\t%d\t%.2f s\n", r.strategy, r.verdict.Lost, r.verdict.Duplicates, r.verdict.Reordered,
			r.amplification(), r.refused, r.throttled, r.took.Seconds())
	}
	return table.Flush()
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	require.NoError(t, err, name)
	return n
}

// backlog is the stream of events in the WAL.
type backlog struct {
	db   *pgtest.DB
	rows []judge.Row
	seed int
	slot string // its name is the prefix of the slots' names
}

// newBacklog commits the events, one version of every aggregate in a transaction. The ids come from
// the seed, and with them the refusals.
func newBacklog(t *testing.T, events, seed int) *backlog {
	t.Helper()
	b := &backlog{db: pgtest.New(t), seed: seed}
	require.NoError(t, b.db.Pool.QueryRow(t.Context(), "SELECT 'compare_' || oid FROM pg_database WHERE datname = current_database()").Scan(&b.slot))
	for _, name := range b.slots() {
		_, err := b.db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", name)
		require.NoError(t, err)
	}
	commit(t, b.db, seed, 1, events/aggregates)
	b.rows = readRows(t, b.db)
	return b
}

// commit commits these versions of every aggregate, each version in a transaction.
func commit(t *testing.T, db *pgtest.DB, seed, from, to int) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), fmt.Sprintf(`DO $$ BEGIN
		FOR version IN %d..%d LOOP
			INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			SELECT md5('%d ' || a || ' ' || version)::uuid, 'Order', 'order-' || a, version, 'OrderChanged', jsonb_build_object('text', repeat('x', 400))
			FROM generate_series(1, %d) AS a;
			COMMIT;
		END LOOP;
	END $$`, from, to, seed, aggregates))
	require.NoError(t, err)
}

func readRows(t *testing.T, db *pgtest.DB) []judge.Row {
	t.Helper()
	result, err := db.Pool.Query(t.Context(), `SELECT id, aggregate_type, aggregate_id, aggregate_version AS version, event_type, event_data AS data,
		traceparent, created_at FROM outbox`)
	require.NoError(t, err)
	rows, err := pgx.CollectRows(result, pgx.RowToStructByName[judge.Row])
	require.NoError(t, err)
	return rows
}

// slots are the names of the slots, ours first. All stand before the first event.
func (b *backlog) slots() (names []string) {
	for i := range len(strategies) + 1 {
		names = append(names, fmt.Sprintf("%s_%d", b.slot, i))
	}
	return names
}

// run lets a relay send the stream to an empty Kinesis, with walrelay's own writer if the strategy has none.
func (b *backlog) run(t *testing.T, s strategy) result {
	t.Helper()
	var arrivals judge.Arrivals[awslocal.StreamRecord]
	server, config := awstest.Start(t, awslocal.Config{
		Streams:  []awslocal.Stream{{Name: stream, Shards: 2}},
		OnRecord: func(r awslocal.StreamRecord) { arrivals.Add(eventID(entry{Data: r.Data}), r) },
	})
	throttle := server.Faults().Add(awslocal.Fault{
		Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Code: "ProvisionedThroughputExceededException",
		Rate: throttledShare, Seed: uint64(b.seed),
	})
	kinesisService := &service{
		Client:  kinesis.NewFromConfig(config, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }),
		refused: map[uuid.UUID]bool{},
	}
	var client walrelay.Kinesis = kinesisService
	awaitAll := func(ctx context.Context) error { return arrivals.Wait(ctx, len(b.rows), labtest.Patience) }
	if s.again != nil {
		d := &double{kinesisService, s, make(chan entry, len(b.rows))}
		client, awaitAll = d, func(ctx context.Context) error { return d.write(ctx, len(b.rows)) }
	}
	login, err := rdsdb.NewURLLogin(b.db.URL, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{
		Database: login, Stream: stream, Slot: b.slots()[1+slices.IndexFunc(strategies, func(o strategy) bool { return o.name == s.name })],
		Kinesis: client, Log: slog.New(slog.NewTextHandler(labtest.NewLog(t), nil)),
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	began := time.Now()
	go func() {
		err := relay.Run(ctx)
		stop() // nothing comes any more
		ended <- err
	}()
	err = awaitAll(ctx)
	took := time.Since(began)
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, err)

	all, _ := arrivals.Take()
	return result{
		strategy: s.name, took: took, sent: kinesisService.sent, refused: len(kinesisService.refused), throttled: throttle.Struck(),
		verdict: judge.Judge(judge.Round{Rows: b.rows, Arrivals: onBus(t, all), NotCounted: true}),
	}
}

// onBus returns the stream's records as the bus has them if nothing goes wrong behind the stream: in
// the order of their shard. An aggregate is in one shard.
func onBus(t *testing.T, records []awslocal.StreamRecord) (events []awslocal.BusEvent) {
	t.Helper()
	sortByShard(records)
	for _, r := range records {
		record, skip, err := outbox.ParseRecord(r.Data)
		require.NoError(t, err)
		require.Equal(t, outbox.SkipNothing, skip)
		row := record.Row
		events = append(events, busEvent(t, r.SequenceNumber, judge.Row{
			ID: row.ID, AggregateType: row.AggregateType, AggregateID: row.AggregateID, Version: row.AggregateVersion,
			EventType: row.EventType, Data: row.EventData, CreatedAt: row.CreatedAt,
		}))
	}
	return events
}

func sortByShard(records []awslocal.StreamRecord) {
	slices.SortFunc(records, func(a, b awslocal.StreamRecord) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Index, b.Index))
	})
}

// busEvent is what the consumer publishes for a row.
func busEvent(t *testing.T, id string, row judge.Row) awslocal.BusEvent {
	t.Helper()
	detail, err := json.Marshal(map[string]any{
		"aggregateId": row.AggregateID, "aggregateType": row.AggregateType, "aggregateVersion": row.Version,
		"eventId": row.ID, "eventData": row.Data, "timestamp": outbox.FormatTime(row.CreatedAt),
	})
	require.NoError(t, err)
	return awslocal.BusEvent{
		ID: id, Source: "outbox." + strings.ToLower(row.AggregateType), DetailType: row.EventType, Time: row.CreatedAt, Detail: detail,
	}
}
