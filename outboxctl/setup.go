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
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
)

// localEnvFile is what a running `make dev` writes: the set-up of this machine.
const localEnvFile = ".data/outboxctl.env"

// setup is one deployment, or this machine. An optional part that is empty is absent; the commands that need it say so.
type setup struct {
	databaseURL string        // DATABASE_URL; else the DB_* variables of the functions
	database    *rdsdb.Config // DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN, DB_SSL
	aws         aws.Config    // AWS_REGION, credentials, AWS_ENDPOINT_URL...
	stream      string        // STREAM_NAME
	slot        string        // SLOT_NAME, default outbox_relay; under DMS the task's slot
	bus         string        // EVENT_BUS_NAME
	busLogGroup string        // BUS_LOG_GROUP: the log group that gets every event of the bus
	failures    string        // FAILURE_QUEUE_URL: parked events
	discards    string        // DISCARD_QUEUE_URL: Lambda's on-failure messages; optional
	consumer    string        // CONSUMER_FUNCTION: name of cdcConsumer; optional
}

// setup reads the file, or the environment. Never a part of each: half of one deployment and half of another would be audited as if
// they were one. Credentials alone may come from outside.
func (p *program) setup(ctx context.Context) (*setup, error) {
	file := p.envFile
	if file == "" && os.Getenv("STREAM_NAME") == "" {
		if _, err := os.Stat(localEnvFile); errors.Is(err, fs.ErrNotExist) {
			return nil, usageError("which set-up? Start `make dev` here, or name a file with --env-file (scripts/outboxctl-env.sh makes one " +
				"for a stage), or set STREAM_NAME and the other variables of docs/outboxctl.md")
		}
		file = localEnvFile
	}
	if file != "" {
		if err := loadEnvFile(file); err != nil {
			return nil, err
		}
	}
	s := &setup{
		databaseURL: os.Getenv("DATABASE_URL"),
		stream:      os.Getenv("STREAM_NAME"),
		slot:        cmp.Or(os.Getenv("SLOT_NAME"), "outbox_relay"),
		bus:         os.Getenv("EVENT_BUS_NAME"),
		busLogGroup: os.Getenv("BUS_LOG_GROUP"),
		failures:    os.Getenv("FAILURE_QUEUE_URL"),
		discards:    os.Getenv("DISCARD_QUEUE_URL"),
		consumer:    os.Getenv("CONSUMER_FUNCTION"),
	}
	for _, required := range []struct{ name, value string }{
		{"STREAM_NAME", s.stream}, {"EVENT_BUS_NAME", s.bus}, {"BUS_LOG_GROUP", s.busLogGroup}, {"FAILURE_QUEUE_URL", s.failures},
	} {
		if required.value == "" {
			return nil, usageError(required.name + " is not set: see docs/outboxctl.md")
		}
	}
	if s.databaseURL == "" {
		database, err := rdsdb.ConfigFromEnv(os.Getenv)
		if err != nil {
			return nil, usageError("DATABASE_URL is not set, and of the variables in its place: " + err.Error())
		}
		database.ApplicationName = "outboxctl"
		s.database = &database
	}
	var err error
	if s.aws, err = config.LoadDefaultConfig(ctx); err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	return s, nil
}

// ours are the variables that a file replaces as a whole, and every AWS_ENDPOINT_URL_<SERVICE>.
var ours = []string{
	"DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "DB_SSL", "STREAM_NAME", "SLOT_NAME", "EVENT_BUS_NAME",
	"BUS_LOG_GROUP", "FAILURE_QUEUE_URL", "DISCARD_QUEUE_URL", "CONSUMER_FUNCTION", "RETENTION_DAYS", "METRICS_LOGS", "AWS_REGION", "AWS_ENDPOINT_URL",
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
			return usageError(fmt.Sprintf("%s:%d: not a NAME=value line", path, n))
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

// connect opens one session. Its statements have no time limit, because one may read the whole
// table.
func (s *setup) connect(ctx context.Context) (*pgx.Conn, error) {
	var config *pgx.ConnConfig
	var err error
	if s.database != nil {
		config, err = rdsdb.ConnConfig(ctx, *s.database, secretsmanager.NewFromConfig(s.aws), pgsession.Limits{})
	} else if config, err = pgx.ParseConfig(s.databaseURL); err != nil {
		err = fmt.Errorf("DATABASE_URL: %w", err)
	}
	if err != nil {
		return nil, err
	}
	pgsession.Fix(config, "outboxctl", pgsession.Limits{})
	connecting, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err) // pgx's text has no password
	}
	return conn, nil
}
