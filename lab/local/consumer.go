package local

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/poller"
	"rds-outbox-demo/migrate"
)

// What serverless.yml says of the mapping, too, but for its parallelizationFactor. batchSize is the poller's default.
const (
	localConsumer = "rds-outbox-demo-dev-cdcConsumer"
	batchSize     = 100
	maxRecordAge  = 167 * time.Hour // an hour before the stream forgets a record

	checkpointFile = "checkpoint.json" // of the poller, in the data folder
)

// mapping is how Lambda would describe the poller that startConsumer starts.
func mapping(stream string, tellsDiscards bool) awslocal.Mapping {
	m := awslocal.Mapping{
		Function: localConsumer, Stream: stream, BatchSize: batchSize, ParallelizationFactor: 1, MaximumRetryAttempts: -1,
		MaximumRecordAge: int(maxRecordAge.Seconds()), BisectOnError: true, ReportBatchItemFailures: true,
	}
	if tellsDiscards {
		m.OnFailureQueue = localOnFail
	}
	return m
}

// startConsumer puts the consumer behind the poller, as the event source mapping puts it behind the stream.
func (s *Path) startConsumer(ctx context.Context, c Config, k clients, t *tracker) error {
	if err := cdcconsumer.CheckBus(ctx, k.eventBridge, k.bus); err != nil {
		return err
	}
	consumer, err := cdcconsumer.New(cdcconsumer.Config{
		EventBridge:     watchedBus{k.eventBridge, t, k.eventBridgeURL == k.local},
		SQS:             watchedQueue{k.sqs, c.Observe},
		BusName:         k.bus,
		FailureQueueURL: k.queueURL,
		Logger:          c.Log,
	})
	if err != nil {
		return err
	}
	polled, err := poller.New(poller.Config{
		Kinesis:        k.kinesis,
		Stream:         k.stream,
		Function:       poller.Handler(t.watch(consumer.Handle)),
		Log:            c.Log,
		BatchSize:      batchSize,
		BisectOnError:  true,
		MaxRecordAge:   maxRecordAge,
		OnFailure:      k.discardsURL,
		SQS:            k.sqs,
		CheckpointFile: filepath.Join(c.Dir, checkpointFile),
	})
	if err != nil {
		return err
	}
	polling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := polled.Run(polling); err != nil {
			s.fail(fmt.Errorf("polling the stream: %w", err))
		}
	}()
	s.onClose(func(closing context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-closing.Done():
			return fmt.Errorf("ending the poller: %w", closing.Err())
		}
	})
	return nil
}

func migrateUp(ctx context.Context, databaseURL string) error {
	database, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	_, err = migrate.Up(ctx, database, migrate.Options{LockWait: 20 * time.Second})
	return err
}
