package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"

	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/internal/sdkhttp"
	"rds-outbox-demo/outboxctl"
)

// localEnvFile is written by a running `make dev`. It has the set-up of this machine.
const localEnvFile = ".data/outboxctl.env"

// setup reads the file. Without a file it reads the environment, and without STREAM_NAME in that, localEnvFile. It never
// mixes them, because half of one deployment and half of another would be audited as if they were one. Only credentials
// may come from outside.
func setup(ctx context.Context, file string) (*outboxctl.Setup, error) {
	if file == "" && os.Getenv("STREAM_NAME") == "" {
		if _, err := os.Stat(localEnvFile); errors.Is(err, fs.ErrNotExist) {
			return nil, outboxctl.UsageError("which set-up? Start `make dev` here, or name a file with --env-file (scripts/outboxctl-env.sh makes one " +
				"for a stage), or set STREAM_NAME and the other variables of docs/outboxctl.md")
		}
		file = localEnvFile
	}
	if file != "" {
		if err := loadEnvFile(file); err != nil {
			return nil, err
		}
	}
	s := &outboxctl.Setup{
		DatabaseURL:  os.Getenv("DATABASE_URL"),
		Stream:       os.Getenv("STREAM_NAME"),
		Slot:         cmp.Or(os.Getenv("SLOT_NAME"), "outbox_relay"),
		Bus:          os.Getenv("EVENT_BUS_NAME"),
		BusLogGroup:  os.Getenv("BUS_LOG_GROUP"),
		FailureQueue: os.Getenv("FAILURE_QUEUE_URL"),
		DiscardQueue: os.Getenv("DISCARD_QUEUE_URL"),
		Consumer:     os.Getenv("CONSUMER_FUNCTION"),
	}
	for _, required := range []struct{ name, value string }{
		{"STREAM_NAME", s.Stream}, {"EVENT_BUS_NAME", s.Bus}, {"BUS_LOG_GROUP", s.BusLogGroup}, {"FAILURE_QUEUE_URL", s.FailureQueue},
	} {
		if required.value == "" {
			return nil, outboxctl.UsageError(required.name + " is not set: see docs/outboxctl.md")
		}
	}
	if s.DatabaseURL == "" {
		database, err := rdsdb.ConfigFromEnv(os.Getenv)
		if err != nil {
			return nil, outboxctl.UsageError("DATABASE_URL is not set, and of the variables in its place: " + err.Error())
		}
		database.ApplicationName = "outboxctl"
		s.Database = &database
	}
	var err error
	if days := os.Getenv("RETENTION_DAYS"); days != "" {
		if s.RetentionDays, err = strconv.Atoi(days); err != nil || s.RetentionDays < 1 {
			return nil, outboxctl.UsageError(fmt.Sprintf("RETENTION_DAYS is %q: set it to a number of days above 0", days))
		}
	}
	if s.AWS, err = config.LoadDefaultConfig(ctx); err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	s.AWS.HTTPClient = sdkhttp.Client(s.AWS.HTTPClient)
	return s, nil
}

// ours are the variables that a file replaces as a whole, and every AWS_ENDPOINT_URL_<SERVICE>.
var ours = []string{
	"DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "DB_SSL", "STREAM_NAME", "SLOT_NAME", "EVENT_BUS_NAME",
	"BUS_LOG_GROUP", "FAILURE_QUEUE_URL", "DISCARD_QUEUE_URL", "CONSUMER_FUNCTION", "RETENTION_DAYS", "AWS_REGION", "AWS_ENDPOINT_URL",
}

// loadEnvFile sets the variables of the file's NAME=value lines. No quotes, no expansion; # begins a comment line.
func loadEnvFile(path string) error {
	f, err := os.Open(path) //nolint:gosec // the file that the operator names
	if err != nil {
		return fmt.Errorf("reading the set-up: %w", err)
	}
	defer f.Close()
	replaced := slices.Clone(ours)
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_ENDPOINT_URL_") {
			replaced = append(replaced, name)
		}
	}
	for _, name := range replaced {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return outboxctl.UsageError(fmt.Sprintf("%s:%d: not a NAME=value line", path, n))
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if name == "AWS_ACCESS_KEY_ID" { // a token from outside belongs to another key
			if err := os.Unsetenv("AWS_SESSION_TOKEN"); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}
