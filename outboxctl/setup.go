package outboxctl

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
)

// Setup is the deployment, or the path on this machine, that the commands look at and change.
type Setup struct {
	DatabaseURL   string        // postgres://...; empty when Database is set
	Database      *rdsdb.Config // the address and the secret of a deployed database
	AWS           aws.Config    // region, credentials and endpoints of all services
	Stream        string        // name of the Kinesis stream
	Slot          string        // name of the replication slot: walrelay's, or the DMS task's
	Bus           string        // name of the event bus
	BusLogGroup   string        // the log group that gets every event of the bus
	FailureQueue  string        // URL of the queue of parked events
	DiscardQueue  string        // URL of the queue of Lambda's on-failure messages. Optional.
	Consumer      string        // name of function cdcConsumer. Optional, because only doctor needs it.
	RetentionDays int           // how many days rows stay in table outbox. 0 when nobody said.
	// Peek calls fn for every message of the queue with this URL, without receiving it. SQS has no
	// such call. Only a program that runs a local stand-in for SQS can set it. If it is nil, looking
	// at a queue receives its messages, which hides them from others for that time.
	Peek func(queueURL string, fn func(id, body string, sent time.Time)) error
}

// connect opens one session. Its statements have no time limit, because one may read the whole
// table.
func (s *Setup) connect(ctx context.Context) (*pgx.Conn, error) {
	var config *pgx.ConnConfig
	var err error
	if s.Database != nil {
		config, err = rdsdb.ConnConfig(ctx, *s.Database, secretsmanager.NewFromConfig(s.AWS), pgsession.Limits{})
	} else if config, err = pgsession.ParseConfig(s.DatabaseURL); err != nil {
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
