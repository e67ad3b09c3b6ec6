package retention_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/handlers/retention"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/migrate"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

const (
	soakRate    = 5000 // events a second
	soakWriters = 4
	soakBatch   = 50 // events of as many aggregates in one transaction
	soakWidth   = time.Minute
	soakKeep    = time.Minute
)

// TestSoakPartitions runs by hand: SOAK_SECONDS=600 lets writers, walrelay and retention work on partitions of minutes for ten minutes, and
// prints the figures of docs/scaling.md. Rates and times are figures, not verdicts. The verdict is that every event is on the
// stream, in the order of its aggregate.
func TestSoakPartitions(t *testing.T) {
	seconds, err := strconv.Atoi(os.Getenv("SOAK_SECONDS"))
	if err != nil {
		t.Skip("SOAK_SECONDS is not set")
	}
	r := newServer(t, map[string]string{"max_wal_size": "4GB"})
	config, err := pgx.ParseConfig(r.url)
	require.NoError(t, err)
	r.dropSlot(t)
	stream := soakRelay(t, r)
	for writer := range soakWriters {
		r.exec(t, soakInsert, writer, 1)
	}
	writing, stop := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
	defer stop()
	var written, longest atomic.Int64
	written.Store(soakWriters * soakBatch)
	group, ctx := errgroup.WithContext(t.Context())
	for writer := range soakWriters {
		group.Go(func() error {
			start := time.Now()
			for version := 2; ; version++ {
				due := start.Add(time.Duration(version-2) * time.Second * soakWriters * soakBatch / soakRate)
				select {
				case <-writing.Done():
					return nil
				case <-time.After(time.Until(due)): // a writer that was late catches up
				}
				began := time.Now()
				if _, err := r.pool.Exec(ctx, soakInsert, writer, version); err != nil {
					return fmt.Errorf("writing: %w", err)
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
				written.Add(soakBatch)
			}
		})
	}
	group.Go(func() error { return soakPurge(ctx, t, r, config, writing, &longest) })
	began := time.Now()
	require.NoError(t, group.Wait())
	t.Logf("%d events in %s are %.0f a second", written.Load(), time.Since(began).Round(time.Second), float64(written.Load())/time.Since(began).Seconds())
	labtest.Eventually(t, "the events on the stream", func() bool { return stream.distinct() == written.Load() })
	require.Empty(t, stream.disorder())
}

const soakInsert = `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
	SELECT gen_random_uuid(), 'Car', format('car-%s-%s', $1::int, k), $2, 'CarUpdated', jsonb_build_object('text', repeat('x', 300)) FROM generate_series(1, 50) AS k`

// soakPurge partitions outbox under load, tends the partitions until writing ends, and prints what it took.
func soakPurge(ctx context.Context, t *testing.T, r *rig, config *pgx.ConnConfig, writing context.Context, longest *atomic.Int64) error {
	began := time.Now()
	var swap transactions
	config.Tracer = &swap
	if _, err := migrate.Partition(ctx, config, soakWidth, 0, migrate.Options{}); err != nil {
		return err
	}
	t.Logf("partitioned in %s, each of its transactions that lock writers out in %s at most; the longest transaction of a writer took %s",
		time.Since(began).Round(time.Millisecond), swap.longest, time.Duration(longest.Swap(0)))
	purger := r.purger(t, nil)
	purger.Keep(soakKeep)
	var runs, waits, drops, statements []time.Duration
	var closed, dropping time.Time
	selects := 0
	r.hook.before = func(query string) {
		if query == "SELECT" {
			dropping, selects = time.Now(), selects+1
		}
		if query == "commit" && selects == 2 {
			waits, statements = append(waits, dropping.Sub(closed)), append(statements, time.Since(dropping))
		}
	}
	r.hook.after = func(query string, _ int64) {
		if query == "commit" && selects == 2 { // close and drop
			drops = append(drops, time.Since(dropping))
		}
		if query == "SELECT" && selects == 1 {
			closed = time.Now()
		}
		if query == "begin" {
			selects = 0
		}
	}
	var size, dead, tries int64
	for writing.Err() == nil {
		if _, err := retention.AttachPartitions(ctx, r.conn); err != nil {
			return err
		}
		began := time.Now()
		result, err := purger.Purge(ctx, r.conn)
		if err != nil {
			return err
		}
		if len(result.Dropped) > 0 {
			runs = append(runs, time.Since(began)/time.Duration(len(result.Dropped)))
		}
		var nowSize, nowDead int64
		err = r.pool.QueryRow(ctx, `SELECT sum(pg_total_relation_size(inhrelid)), coalesce(sum(n_dead_tup), 0) FROM pg_inherits
			LEFT JOIN pg_stat_user_tables ON relid = inhrelid WHERE inhparent = 'outbox'::regclass`).Scan(&nowSize, &nowDead)
		if err != nil {
			return err
		}
		size, dead, tries = max(size, nowSize), max(dead, nowDead), tries+1
		select {
		case <-writing.Done():
		case <-time.After(5 * time.Second):
		}
	}
	slices.Sort(runs)
	slices.Sort(waits)
	slices.Sort(drops)
	slices.Sort(statements)
	if len(drops) > 0 {
		t.Logf("%d partitions dropped in %d runs: median %s and longest %s; of that the wait for the slot %s, %s; the drop %s, %s; with its commit %s, %s",
			len(drops), tries, runs[len(runs)/2], runs[len(runs)-1], waits[len(waits)/2], waits[len(waits)-1],
			statements[len(statements)/2], statements[len(statements)-1], drops[len(drops)/2], drops[len(drops)-1])
	}
	t.Logf("the longest transaction of a writer took %s; outbox had %d MB and %d dead rows at most", time.Duration(longest.Load()), size>>20, dead)
	return nil
}

// transactions measures statements that are whole transactions.
type transactions struct {
	began   time.Time
	longest time.Duration
}

func (m *transactions) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	m.began = time.Time{}
	if strings.HasPrefix(data.SQL, "BEGIN") {
		m.began = time.Now()
	}
	return ctx
}

func (m *transactions) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {
	if !m.began.IsZero() {
		m.longest = max(m.longest, time.Since(m.began))
	}
}

// soakStream accepts every record, and notes the versions of each aggregate. It stands for Kinesis, whose speed is not what is measured.
type soakStream struct {
	mu       sync.Mutex
	versions map[string]int64
	count    int64
	wrong    []string
}

func (s *soakStream) DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return &kinesis.DescribeStreamSummaryOutput{}, nil
}

func (s *soakStream) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &kinesis.PutRecordsOutput{FailedRecordCount: aws.Int32(0)}
	for _, entry := range in.Records {
		record, _, err := outbox.ParseRecord(entry.Data)
		if err != nil {
			return nil, err
		}
		row := record.Row
		switch last := s.versions[row.AggregateID]; {
		case row.AggregateVersion == last+1:
			s.versions[row.AggregateID] = row.AggregateVersion
			s.count++
		case row.AggregateVersion > last:
			s.wrong = append(s.wrong, fmt.Sprintf("%s: %d after %d", row.AggregateID, row.AggregateVersion, last))
		}
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1"), ShardId: aws.String("shardId-000000000000")})
	}
	return out, nil
}

func (s *soakStream) distinct() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *soakStream) disorder() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

func soakRelay(t *testing.T, r *rig) *soakStream {
	t.Helper()
	stream := &soakStream{versions: map[string]int64{}}
	database, err := rdsdb.NewURLLogin(r.url, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{Database: database, Stream: "outbox", Slot: r.slot, Kinesis: stream, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	labtest.Eventually(t, "the relay to stream", func() bool {
		return r.ask(t, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1 AND active", r.slot) == "1"
	})
	return stream
}
