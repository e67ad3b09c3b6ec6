// Command walrelay relays one database's outbox to one Kinesis stream until SIGINT or SIGTERM. A first signal lets answers on
// their way arrive (3 s), a second ends it at once.
//
// Environment: DATABASE_URL, STREAM_NAME, SLOT_NAME (default outbox_relay), and the AWS SDK's own (AWS_REGION, credentials,
// AWS_ENDPOINT_URL_KINESIS), and Go's own GOGC and GOMEMLIMIT (default 400 and 44 MiB). Exit code 0 after a signal, 1 when a person has to look.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

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

// tuneCollector lets garbage grow to a fixed amount before it is collected. What the relay holds is small and bounded, what it drops is
// 3 KB a row: by Go's default, which collects whenever the heap has doubled, a seventh of its CPU went there. The limit is a soft one,
// above all that the pipeline may hold (16 MiB of records and their requests): Go never fails for it.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(44 << 20)
	}
}

func run(log *slog.Logger) error {
	databaseURL, stream := os.Getenv("DATABASE_URL"), os.Getenv("STREAM_NAME")
	slot := cmp.Or(os.Getenv("SLOT_NAME"), "outbox_relay")
	for name, value := range map[string]string{"DATABASE_URL": databaseURL, "STREAM_NAME": stream} {
		if value == "" {
			return fmt.Errorf("%s is not set", name)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal finds the default handler
	awsConfig, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("loading the AWS configuration: %w", err)
	}
	relay, err := walrelay.New(walrelay.Config{
		DatabaseURL: databaseURL,
		Stream:      stream,
		Slot:        slot,
		Kinesis:     kinesis.NewFromConfig(awsConfig),
		Log:         log,
	})
	if err != nil {
		return err
	}
	return relay.Run(ctx)
}
