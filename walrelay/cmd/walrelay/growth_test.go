package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

// BenchmarkGrowth drains a backlog through the program, 100 rows of 600 B a transaction, to see that it gets neither slower nor larger.
func BenchmarkGrowth(b *testing.B) {
	program := labtest.Program(b, "walrelay/cmd/walrelay")
	labtest.BenchmarkGrowth(b, func(b *testing.B, n int) (took time.Duration, memory float64) {
		url, slot := backlog(b, n)
		stream, err := sink.Start(0)
		require.NoError(b, err)
		defer stream.Close()
		log, err := os.Create(filepath.Join(b.TempDir(), "walrelay.log"))
		require.NoError(b, err)
		defer log.Close()
		relay, err := process.Start(process.Config{Program: program, Output: log, Env: []string{
			"DATABASE_URL=" + url, "STREAM_NAME=bench", "SLOT_NAME=" + slot, "AWS_ENDPOINT_URL_KINESIS=" + stream.URL,
			"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
		}})
		require.NoError(b, err)
		defer func() {
			relay.Signal(os.Interrupt)
			<-relay.Done()
		}()
		var first time.Time // when the first rows arrived. A start is less of a long run.
		for arrived := int64(0); arrived < int64(n); arrived = stream.Accepted.Load() {
			if first.IsZero() && arrived > 0 {
				first = time.Now()
			}
			select {
			case <-relay.Done():
				text, _ := os.ReadFile(log.Name())
				b.Fatalf("walrelay ended: %v: %s", relay.Err(), text)
			case <-time.After(time.Millisecond):
			}
		}
		return time.Since(first), process.PeakMemory(relay.PID())
	})
}

// backlog makes a database with a slot and n rows of 10,000 aggregates behind it.
func backlog(b *testing.B, n int) (url, slot string) {
	db := pgtest.New(b)
	require.NoError(b, db.Pool.QueryRow(b.Context(), `SELECT slot_name FROM pg_create_logical_replication_slot(
		(SELECT 'growth_' || oid FROM pg_database WHERE datname = current_database()), 'pgoutput')`).Scan(&slot))
	_, err := db.Pool.Exec(b.Context(), fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 0..%d LOOP
			INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			SELECT gen_random_uuid(), 'Car', 'car-' || n %% 10000, n / 10000 + 1, 'CarUpdated',
				jsonb_build_object('make', 'Toyota', 'model', 'Camry', 'year', 2023, 'text', repeat('x', 400))
			FROM generate_series(i * 100, i * 100 + 99) AS n;
			COMMIT;
		END LOOP;
	END $$`, n/100-1))
	require.NoError(b, err)
	return db.URL, slot
}
