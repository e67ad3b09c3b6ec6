package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

// settle returns when the path is done with everything that was written. Whatever is missing on the
// bus after that is lost. No time makes something count as lost, only the path's own positions.
func (r *round) settle(ctx context.Context) error {
	// What a client gave up may still be on its way through the API, or waiting in the socket of one that was away.
	if err := r.await(ctx, "the API's answer", r.healthy); err != nil {
		return err
	}
	if err := r.Processes.API.Kill(ctx); err != nil {
		return err
	}
	idle := r.holds("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle' AND application_name = 'carapi')")
	if err := r.await(ctx, "the end of every transaction", idle); err != nil {
		return err
	}
	// Everything is on the stream when the slot is confirmed after it. The message adds WAL of its
	// own. Without it, nothing might move the slot to the position.
	var behind string
	err := r.await(ctx, "the position of the WAL", func(ctx context.Context) error {
		return r.pool.QueryRow(ctx, "SELECT pg_logical_emit_message(false, 'chaos', '')::text").Scan(&behind)
	})
	if err != nil {
		return err
	}
	if err := r.await(ctx, "the relay to confirm "+behind, r.confirmed(behind)); err != nil {
		return err
	}
	// And everything is done with when the consumer's checkpoint is at a record behind it, in each shard.
	fences, err := r.putFences(ctx)
	if err != nil {
		return err
	}
	if err := r.await(ctx, "the consumer to reach the end of the stream", func(context.Context) error { return r.reached(fences) }); err != nil {
		return err
	}
	return r.await(ctx, "the subscriber to empty its queue", r.counted)
}

// counted reports whether the subscriber's queue has nothing left, visible, hidden or delayed.
func (r *round) counted(ctx context.Context) error {
	depths, err := r.Depths(ctx)
	if err == nil && depths.Subscriber > 0 {
		err = fmt.Errorf("%d messages are left", depths.Subscriber)
	}
	return err
}

// fence is a control record, with which DMS says that it has created a table. It is not an event.
const fence = `{"metadata":{"timestamp":"2026-01-01T00:00:00Z","record-type":"control","operation":"create-table","partition-key-type":"task-id","schema-name":"public","table-name":"fence"}}`

// putFences puts one record behind everything else in each of the two shards, and returns their sequence numbers by shard.
func (r *round) putFences(ctx context.Context) (map[string]string, error) {
	fences := map[string]string{}
	for _, hashKey := range []string{"0", "340282366920938463463374607431768211455"} {
		err := r.await(ctx, "the stream to take a fence", func(ctx context.Context) error {
			out, err := r.Services.Kinesis().PutRecord(ctx, &kinesis.PutRecordInput{
				StreamName: &r.Services.Stream, PartitionKey: aws.String("fence"), ExplicitHashKey: &hashKey, Data: []byte(fence),
			})
			if err == nil {
				fences[*out.ShardId] = *out.SequenceNumber
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(fences) != 2 {
		return nil, fmt.Errorf("the fences are in %d shards, not in 2", len(fences))
	}
	return fences, nil
}

func (r *round) reached(fences map[string]string) error {
	content, err := os.ReadFile(r.CheckpointFile())
	if err != nil {
		return err
	}
	var file struct {
		Shards map[string]struct{ SequenceNumber string }
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return err
	}
	for shard, number := range fences {
		// Of the same length, so that their order as text is their order.
		if at := file.Shards[shard].SequenceNumber; at < number {
			return fmt.Errorf("%s is at %s, not at %s", shard, at, number)
		}
	}
	return nil
}

// collect adds what the tables, the bus and the failure queue have to what the history knows.
func (r *round) collect(ctx context.Context) (judge.Round, error) {
	h, all := r.history, r.history.known
	all.Earlier, all.Replay, all.InOrder = r.earlier, askedFor, r.config.inOrder()
	var err error
	if all.Rows, err = query[judge.Row](ctx, r, recorded); err != nil {
		return all, err
	}
	if all.Cars, err = query[judge.Car](ctx, r, domain.Rows); err != nil {
		return all, err
	}
	if all.Stats, err = query[judge.Stat](ctx, r, domain.Totals); err != nil {
		return all, err
	}
	r.busRead, err = awslocal.ReadBusFrom(r.AWSDir(), r.busRead, func(e awslocal.BusEvent, end int64) error {
		for len(all.Moments) < len(h.moments) && h.moments[len(all.Moments)] < end {
			all.Moments = append(all.Moments, len(all.Arrivals))
		}
		all.Arrivals = append(all.Arrivals, e)
		return nil
	})
	for len(all.Moments) < len(h.moments) {
		all.Moments = append(all.Moments, len(all.Arrivals))
	}
	if err != nil {
		return all, err
	}
	all.Parked, err = r.emptyQueue(ctx)
	return all, err
}

func query[T any](ctx context.Context, r *round, sql string, args ...any) (all []T, err error) {
	err = r.await(ctx, "the tables", func(ctx context.Context) error {
		rows, err := r.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByName[T])
		return err
	})
	return all, err
}

// emptyQueue takes the failure queue's messages out.
func (r *round) emptyQueue(ctx context.Context) (bodies [][]byte, err error) {
	queue, url := r.Services.SQS(), &r.Services.FailureQueueURL
	for {
		out, err := queue.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 10})
		if err != nil {
			return nil, fmt.Errorf("reading the failure queue: %w", err)
		}
		if len(out.Messages) == 0 {
			return bodies, nil
		}
		for _, m := range out.Messages {
			bodies = append(bodies, []byte(*m.Body))
			if _, err := queue.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				return nil, fmt.Errorf("emptying the failure queue: %w", err)
			}
		}
	}
}

// forget empties the tables for the next round, as retention would. No delete may reach a
// subscriber, or the next round would see it. Events that arrived are remembered for late
// duplicates.
func (r *round) forget(ctx context.Context, judged judge.Round) error {
	r.earlier.Add(judged)
	// The inbox stays, because a late duplicate must be recognised.
	tables := append([]string{"chaos.record", "chaos.counted"}, domain.Tables...)
	if !r.config.Promote { // a promotion must not send what earlier rounds wrote, so there it stays
		tables = append(tables, "outbox")
	}
	for _, table := range tables {
		if err := r.execute(ctx, "DELETE FROM "+table); err != nil {
			return err
		}
	}
	return nil
}

// pause lets what comes twice come before the round is judged.
const pause = 300 * time.Millisecond
