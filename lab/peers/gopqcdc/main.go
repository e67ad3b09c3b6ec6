// Command gopqcdc is a relay made of github.com/Trendyol/go-pq-cdc and the usual PutRecords writer.
// `make peers` runs it beside walrelay. docs/peers.md says where its settings come from.
//
// Environment: DATABASE_URL, STREAM_NAME, SLOT_NAME, and the AWS SDK's own.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	cdc "github.com/Trendyol/go-pq-cdc"
	"github.com/Trendyol/go-pq-cdc/config"
	"github.com/Trendyol/go-pq-cdc/pq/message/format"
	"github.com/Trendyol/go-pq-cdc/pq/publication"
	"github.com/Trendyol/go-pq-cdc/pq/replication"
	"github.com/Trendyol/go-pq-cdc/pq/slot"
	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
)

const (
	batchSize = 500                    // Kinesis's limit
	tick      = 100 * time.Millisecond // after which a batch is sent that is not full
	pause     = 100 * time.Millisecond // before refused records are sent again
)

func main() {
	if err := run(context.Background()); err != nil {
		slog.Error("gopqcdc", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	awsConfig, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	w := &writer{kinesis: kinesis.NewFromConfig(awsConfig), stream: os.Getenv("STREAM_NAME")}
	settings, err := connectorConfig()
	if err != nil {
		return err
	}
	connector, err := cdc.NewConnector(ctx, settings, w.handle)
	if err != nil {
		return err
	}
	defer connector.Close()
	go func() {
		for range time.Tick(tick) {
			w.mu.Lock()
			w.flush(ctx)
			w.mu.Unlock()
		}
	}()
	connector.Start(ctx)
	return nil
}

func connectorConfig() (config.Config, error) {
	database, err := url.Parse(os.Getenv("DATABASE_URL"))
	if err != nil {
		return config.Config{}, err
	}
	// The library serves its metrics. The default port may be taken.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return config.Config{}, err
	}
	defer free.Close()
	password, _ := database.User.Password()
	return config.Config{
		Host: database.Host, Username: database.User.Username(), Password: password, Database: strings.TrimPrefix(database.Path, "/"),
		Publication: publication.Config{Name: "outbox_publication"},
		Slot:        slot.Config{Name: os.Getenv("SLOT_NAME"), CreateIfNotExists: true, SlotActivityCheckerInterval: 1000},
		Metric:      config.MetricConfig{Port: free.Addr().(*net.TCPAddr).Port},
		Logger:      config.LoggerConfig{LogLevel: slog.LevelInfo},
	}, nil
}

// writer sends full batches, and acknowledges the last message of each after Kinesis has accepted all of it.
type writer struct {
	kinesis *kinesis.Client
	stream  string

	mu    sync.Mutex
	batch []types.PutRecordsRequestEntry
	ack   func() error
}

func (w *writer) handle(ctx *replication.ListenerContext) {
	insert, ok := ctx.Message.(*format.Insert)
	if !ok {
		return
	}
	insert.Decoded["id"] = uuid.UUID(insert.Decoded["id"].([16]byte)) // JSON would have it as 16 numbers
	data, err := json.Marshal(insert.Decoded)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := insert.Decoded["aggregate_id"].(string)
	w.batch, w.ack = append(w.batch, types.PutRecordsRequestEntry{Data: data, PartitionKey: &key}), ctx.Ack
	if len(w.batch) == batchSize {
		w.flush(context.Background())
	}
}

// flush sends the batch, and what Kinesis refuses of it again. w.mu is held.
func (w *writer) flush(ctx context.Context) {
	if len(w.batch) == 0 {
		return
	}
	for left := w.batch; len(left) > 0; {
		out, err := w.kinesis.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &w.stream, Records: left})
		if err != nil {
			slog.Error("PutRecords", "error", err)
			time.Sleep(pause)
			continue
		}
		if aws.ToInt32(out.FailedRecordCount) == 0 {
			break
		}
		var refused []types.PutRecordsRequestEntry
		for i, answer := range out.Records {
			if answer.ErrorCode != nil {
				refused = append(refused, left[i])
			}
		}
		left = refused
		time.Sleep(pause)
	}
	w.batch = w.batch[:0]
	if err := w.ack(); err != nil {
		slog.Error("acknowledging", "error", err)
	}
}
