// Command watermill is the outbox of github.com/ThreeDotsLabs/watermill-sql with Watermill's forwarder.
// `make peers` runs it beside walrelay. docs/peers.md says where its settings come from.
//
// "watermill publish 3" copies the rows of table outbox from version 3 of their aggregates on into Watermill's own table with its
// publisher, each version in a transaction. "watermill" polls that table, and forwards to Kinesis.
//
// Environment: DATABASE_URL, STREAM_NAME, and the AWS SDK's own.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	topic        = "outbox" // Watermill's table is watermill_outbox
	partitionKey = "aggregate_id"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("watermill", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	log := watermill.NewSlogLogger(slog.Default())
	subscriber, err := sql.NewSubscriber(sql.BeginnerFromPgx(db), sql.SubscriberConfig{
		SchemaAdapter: sql.DefaultPostgreSQLSchema{}, OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{},
	}, log)
	if err != nil {
		return err
	}
	stream := os.Getenv("STREAM_NAME")
	if len(os.Args) > 2 {
		if err := subscriber.SubscribeInitialize(topic); err != nil {
			return err
		}
		return publish(ctx, db, os.Args[2], stream, log)
	}
	awsConfig, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(subscriber, publisher{kinesis.NewFromConfig(awsConfig)}, log, forwarder.Config{ForwarderTopic: topic})
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// publish publishes the rows from a version on.
func publish(ctx context.Context, db *pgxpool.Pool, from, stream string, log watermill.LoggerAdapter) error {
	rows, err := db.Query(ctx, `SELECT aggregate_version, id::text, aggregate_id, row_to_json(outbox)::text FROM outbox
		WHERE aggregate_version >= $1::text::bigint ORDER BY aggregate_version, aggregate_id`, from)
	if err != nil {
		return err
	}
	var versions [][]*message.Message
	var version, last int64
	var id, aggregate, data string
	_, err = pgx.ForEachRow(rows, []any{&version, &id, &aggregate, &data}, func() error {
		if last != version {
			versions, last = append(versions, nil), version
		}
		m := message.NewMessage(id, []byte(data))
		m.Metadata.Set(partitionKey, aggregate)
		versions[len(versions)-1] = append(versions[len(versions)-1], m)
		return nil
	})
	if err != nil {
		return err
	}
	for _, messages := range versions {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			inTable, err := sql.NewPublisher(sql.TxFromPgx(tx), sql.PublisherConfig{SchemaAdapter: sql.DefaultPostgreSQLSchema{}}, log)
			if err != nil {
				return err
			}
			return forwarder.NewPublisher(inTable, forwarder.PublisherConfig{ForwarderTopic: topic}).Publish(stream, messages...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// publisher puts messages on a Kinesis stream. The forwarder gives it one at a time.
type publisher struct{ kinesis *kinesis.Client }

func (p publisher) Publish(stream string, messages ...*message.Message) error {
	for _, m := range messages {
		key := m.Metadata.Get(partitionKey)
		if _, err := p.kinesis.PutRecord(m.Context(), &kinesis.PutRecordInput{StreamName: &stream, PartitionKey: &key, Data: m.Payload}); err != nil {
			return fmt.Errorf("putting a record: %w", err)
		}
	}
	return nil
}

func (publisher) Close() error { return nil }
