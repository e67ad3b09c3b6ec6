package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/part"
)

// inherited is the descriptor of the listening socket that lab/process hands over.
const inherited = 4

// runPart runs one part of the path for `make chaos`, which sets the environment: package chaos says what each part gets.
func runPart(ctx context.Context, name string) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	switch name {
	case "api":
		listener, err := inheritedListener()
		if err != nil {
			return err
		}
		return part.API(ctx, listener, os.Getenv("DATABASE_URL"), log)
	case "aws":
		listener, err := inheritedListener()
		if err != nil {
			return err
		}
		var standing []awslocal.Fault
		if err := json.Unmarshal([]byte(os.Getenv("STANDING_FAULTS")), &standing); err != nil {
			return fmt.Errorf("STANDING_FAULTS: %w", err)
		}
		aws := awslocal.Config{
			Dir:     os.Getenv("AWS_DIR"),
			Streams: []awslocal.Stream{{Name: os.Getenv("STREAM_NAME"), Shards: 2}},
			Buses:   []string{os.Getenv("EVENT_BUS_NAME")},
			Queues:  []string{os.Getenv("FAILURE_QUEUE_NAME")},
			BusLogs: map[string]string{os.Getenv("BUS_LOG_GROUP"): os.Getenv("EVENT_BUS_NAME")},
			// All of it is judged.
			JournalBytes: 1 << 40,
			Log:          log,
		}
		if queue := os.Getenv("CARSTATS_QUEUE_NAME"); queue != "" {
			// While the database is killed again and again a low count would park what is good.
			aws = part.WithCarStats(aws, os.Getenv("EVENT_BUS_NAME"), queue, 1000)
		}
		return part.AWS(ctx, listener, aws, standing)
	case "consumer":
		awsConfig, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return fmt.Errorf("loading the AWS configuration: %w", err)
		}
		return part.Consumer(ctx, part.ConsumerConfig{
			AWS:             awsConfig,
			Stream:          os.Getenv("STREAM_NAME"),
			Bus:             os.Getenv("EVENT_BUS_NAME"),
			FailureQueueURL: os.Getenv("FAILURE_QUEUE_URL"),
			Checkpoint:      os.Getenv("CHECKPOINT_FILE"),
			Timeout:         6 * time.Second,
			Log:             log,
		})
	case "carstats":
		awsConfig, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return fmt.Errorf("loading the AWS configuration: %w", err)
		}
		return part.CarStats(ctx, part.CarStatsConfig{
			AWS:         awsConfig,
			QueueURL:    os.Getenv("CARSTATS_QUEUE_URL"),
			DatabaseURL: os.Getenv("DATABASE_URL"),
			Timeout:     4 * time.Second,
			Log:         log,
		})
	default:
		return usageError(usage)
	}
}

func inheritedListener() (net.Listener, error) {
	file := os.NewFile(inherited, "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("taking over the listening socket (descriptor %d): %w", inherited, err)
	}
	return listener, nil
}
