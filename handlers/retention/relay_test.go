package retention_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
	"rds-outbox-demo/walrelay"
)

// relay runs walrelay on the rig's slot until the test ends. arrived reads everything that is on its stream.
func (r *rig) relay(t *testing.T) (arrived func() map[string]int) {
	t.Helper()
	_, config := awstest.Start(t, awslocal.Config{Streams: []awslocal.Stream{{Name: "outbox", Shards: 1}}})
	stream := kinesis.NewFromConfig(config)
	database, err := rdsdb.NewURLLogin(r.url, "walrelay")
	require.NoError(t, err)
	relay, err := walrelay.New(walrelay.Config{
		Database: database, Stream: "outbox", Slot: r.slot, Kinesis: stream, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("walrelay: %v", err)
		}
	})
	return func() map[string]int {
		shard, err := stream.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String("outbox"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		require.NoError(t, err)
		events := map[string]int{}
		for next := shard.ShardIterator; ; {
			page, err := stream.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			require.NoError(t, err)
			if len(page.Records) == 0 {
				return events
			}
			for _, raw := range page.Records {
				record, skip, err := outbox.ParseRecord(raw.Data)
				require.NoError(t, err)
				require.Equal(t, outbox.SkipNothing, skip)
				events[fmt.Sprintf("%s of %s", record.Operation, record.Row.AggregateID)]++
			}
			next = page.NextShardIterator
		}
	}
}

// On a server where nobody writes anything, the purge itself has to make the slot move. RDS changes to a new WAL segment every five
// minutes. The end of the WAL is then after the new segment's header, which no relay confirms before a record follows.
func TestAnIdleDatabaseIsPurgedWithinSeconds(t *testing.T) {
	t.Parallel()
	r := idle(t)
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 3, result.Deleted)
}

// The transaction that drops a partition stays open while the slot is waited for, so no commit of its own moves the slot.
func TestAnIdlePartitionIsDroppedWithinSeconds(t *testing.T) {
	t.Parallel()
	r := idle(t, (*rig).partition)
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.Equal(t, []string{aged}, result.Dropped)
}

// idle is a server with due rows on the stream, and a slot that is at the end of the WAL but for a header.
func idle(t *testing.T, prepare ...func(*rig, *testing.T)) *rig {
	t.Helper()
	r := newServer(t, map[string]string{"autovacuum": "off", "checkpoint_timeout": "1h"})
	// The background writer writes into the WAL now and then, and the slot would move in the end without the purge's help.
	writer, err := strconv.Atoi(r.ask(t, "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'background writer'"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(writer, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(writer, syscall.SIGCONT) }) // or it outlives the server
	for _, do := range prepare {
		do(r, t)
	}
	r.dropSlot(t) // walrelay makes it, after a load
	r.rows(t, "older", 3, 16)
	arrived := r.relay(t)
	labtest.Eventually(t, "the load", func() bool { return arrived()["load of older"] == 3 })
	behind := func() bool {
		return r.ask(t, `SELECT coalesce(bool_or(pg_current_wal_insert_lsn() - confirmed_flush_lsn BETWEEN 1 AND 40), false)::text
			FROM pg_replication_slots WHERE slot_name = $1 AND active`, r.slot) == "true"
	}
	labtest.Eventually(t, "a slot that is at the end of the WAL but for a header", func() bool {
		r.exec(t, "SELECT pg_switch_wal()")
		for range 300 {
			if behind() {
				return true
			}
			time.Sleep(10 * time.Millisecond) // between two looks
		}
		return false
	})
	return r
}

func TestDeletesReachNoSubscriber(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrived := r.relay(t)
	r.rows(t, "older", 50, 15)
	labtest.Eventually(t, "the events", func() bool { return arrived()["insert of older"] == 50 })
	result, err := r.purger(t, nil).Purge(t.Context(), r.conn)
	require.NoError(t, err)
	require.EqualValues(t, 50, result.Deleted)

	r.rows(t, "later", 1, 0)
	labtest.Eventually(t, "an event from after the deletion", func() bool { return arrived()["insert of later"] == 1 })
	require.Equal(t, map[string]int{"insert of older": 50, "insert of later": 1}, arrived())
}
