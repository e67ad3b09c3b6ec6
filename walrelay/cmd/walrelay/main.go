// Command walrelay relays one database's outbox to one Kinesis stream until SIGINT or SIGTERM. A first signal lets answers on
// their way arrive (3 s), a second ends it at once.
//
// Environment: DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN and DB_SSL (package rdsdb), or DATABASE_URL in their place;
// STREAM_NAME, SLOT_NAME (default outbox_relay), the AWS SDK's own (AWS_REGION, credentials, AWS_ENDPOINT_URL_KINESIS), and Go's own
// GOGC and GOMEMLIMIT (default 400 and 44 MiB). Exit code 0 after a signal, 1 when a person has to look.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	// The public web's roots, for where there is no system store. An image on an empty base has none, and every call to AWS would
	// fail with "certificate signed by unknown authority".
	_ "golang.org/x/crypto/x509roots/fallback"

	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/internal/sdkhttp"
	"rds-outbox-demo/walrelay"
)

func main() {
	tuneCollector()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("walrelay stopped", "hop", 3, "error", err)
		os.Exit(1)
	}
}

// tuneCollector lets garbage grow to a fixed amount before it is collected. The relay's live heap is small
// and bounded, but it drops 3 KB a row. With Go's default, which collects whenever the heap has doubled, a
// seventh of its CPU went to the collector. The limit is a soft one, so Go never fails because of it. It is
// more than the pipeline may hold (16 MiB of records and their requests).
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(44 << 20)
	}
}

func run(log *slog.Logger) error {
	stream := os.Getenv("STREAM_NAME")
	if stream == "" {
		return errors.New("STREAM_NAME is not set")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal finds the default handler
	awsConfig, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("loading the AWS configuration: %w", err)
	}
	awsConfig.HTTPClient = sdkhttp.Client(awsConfig.HTTPClient)
	database, err := rdsdb.LoginFromEnv(os.Getenv, "walrelay", secretsmanager.NewFromConfig(awsConfig))
	if err != nil {
		return err
	}
	relay, err := walrelay.New(walrelay.Config{
		Database: database,
		Stream:   stream,
		Slot:     cmp.Or(os.Getenv("SLOT_NAME"), "outbox_relay"),
		Kinesis:  kinesis.NewFromConfig(awsConfig),
		Log:      log,
	})
	if err != nil {
		return err
	}
	return relay.Run(ctx)
}
