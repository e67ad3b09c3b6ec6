// Package awslocal is one HTTP listener that answers like Kinesis, EventBridge, SQS, Secrets
// Manager and CloudWatch Logs Insights, for a laptop and for tests. Of Lambda it only lists the
// event source mappings.
//
// In: the JSON requests of any AWS SDK (X-Amz-Target, x-amz-json-1.0 and 1.1, and Lambda's REST) on
// 127.0.0.1. Credentials are ignored. Out: the services' answers, limits and error codes, and a
// journal of every event that the bus accepted. A missing operation answers
// UnknownOperationException.
//
// State lives in one folder and survives kill -9 of the process. An answer is given after write(2),
// not after fsync, so a power cut can lose the last answers. Memory does not grow with what is
// stored, because records and events are on disk, bounded by age and size.
package awslocal

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"rds-outbox-demo/lab/private"
)

// Every ARN of this package names them.
const (
	Region  = "us-east-1"
	Account = "000000000000"
)

// Config says where the state is and what exists. Resources are made where they are absent and kept where they are present.
type Config struct {
	// Dir holds all state. Only one process at a time can have it. Open fails while another one has
	// it.
	Dir string

	Streams []Stream
	// Buses besides "default", which always exists. A PutEvents entry for an unknown bus gets an
	// EventId and is dropped (putEvents has the source).
	Buses  []string
	Queues []string
	// Redrives maps the name of a queue to its redrive policy.
	Redrives map[string]Redrive
	// Rules are the buses' rules with a queue as target.
	Rules []Rule
	// BusLogs maps the name of a log group to the name of the bus whose events are in it. Logs Insights reads it from the journal.
	BusLogs map[string]string
	// QueryRows is the most rows that a query of Logs Insights returns. Default, and the service's, 10,000.
	QueryRows int
	// Secrets maps a name to its SecretString. Never written to Dir.
	Secrets map[string]string
	// Mappings are the event source mappings that ListEventSourceMappings answers with. Nothing
	// polls them.
	Mappings []Mapping

	// ShardLimits switches on a shard's throughput: 1 MiB and 1,000 records a second in, 2 MiB and 5 GetRecords a second out.
	ShardLimits bool

	// Retention is a record's age in a stream after which it goes. Default 168 h.
	Retention time.Duration
	// ShardBytes bounds a shard on disk. Its oldest records go first. Default 256 MiB.
	ShardBytes int64
	// JournalBytes is how much of the bus journal is kept at least. At most twice as much is kept.
	// Default 64 MiB.
	JournalBytes int64

	// OnEvent sees every accepted event, in journal order, after it is in the journal and before
	// PutEvents answers. There is one call at a time, and no other event is accepted during the
	// call. It may be nil.
	OnEvent func(BusEvent)
	// OnRecord sees every record that a stream accepted, before the answer. Several calls come at
	// once. It must not block. It may be nil.
	OnRecord func(StreamRecord)

	// Log gets what a client cannot see, such as disk errors and events for unknown buses. If it is
	// nil nothing is logged.
	Log *slog.Logger
	// Now is the clock for arrival times, retention, iterators and visibility. If it is nil,
	// time.Now is used.
	Now func() time.Time
}

// Stream is a Kinesis stream and its number of shards, 1 to 500. The number cannot change later.
type Stream struct {
	Name   string
	Shards int
}

// Server is the listener's handler. Serve it on 127.0.0.1 only, because it has no authentication.
type Server struct {
	conf    Config
	lock    *os.File
	faults  *Faults
	kinesis *kinesis
	events  *events
	sqs     *sqs
	secrets *secrets
	logs    *logs

	operations map[string]operation // by service and name

	done     chan struct{}  // closed by Close, which releases every waiting call
	requests sync.WaitGroup // being answered
	mu       sync.Mutex     // guards closed against requests.Add
	closed   bool
}

// Open reads the folder, cuts off what a kill left half-written, and makes the missing resources.
// It returns an error for a bad Config (naming the field), a folder in use, and a damaged file.
func Open(conf Config) (*Server, error) {
	if conf.Dir == "" {
		return nil, errors.New("awslocal: Config.Dir is empty: name the folder that keeps the state")
	}
	setDefaults(&conf)
	if err := os.MkdirAll(conf.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	lock, err := private.Lock(conf.Dir) // two writers would interleave their records
	if err != nil {
		return nil, err
	}
	s := &Server{conf: conf, lock: lock, faults: &Faults{}, done: make(chan struct{})}
	if err := s.openServices(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	lambda := lambda{conf.Mappings}
	s.operations = map[string]operation{
		"kinesis.CreateStream":          handle(s.kinesis.createStream),
		"kinesis.DescribeStreamSummary": handle(s.kinesis.describeStreamSummary),
		"kinesis.ListShards":            handle(s.kinesis.listShards),
		"kinesis.PutRecord":             handle(s.kinesis.putRecord),
		"kinesis.PutRecords":            handle(s.kinesis.putRecords),
		"kinesis.GetShardIterator":      handle(s.kinesis.getShardIterator),
		"kinesis.GetRecords":            handle(s.kinesis.getRecords),

		"events.PutEvents":        handle(s.events.putEvents),
		"events.DescribeEventBus": handle(s.events.describeEventBus),

		"sqs.GetQueueAttributes":           handle(s.sqs.getQueueAttributes),
		"sqs.SendMessage":                  handle(s.sqs.sendMessage),
		"sqs.ReceiveMessage":               handle(s.sqs.receiveMessage),
		"sqs.DeleteMessage":                handle(s.sqs.deleteMessage),
		"sqs.ChangeMessageVisibilityBatch": handle(s.sqs.changeMessageVisibilityBatch),

		"secretsmanager.GetSecretValue": handle(s.secrets.getSecretValue),

		"logs.StartQuery":      handle(s.logs.startQuery),
		"logs.GetQueryResults": handle(s.logs.getQueryResults),
		"logs.StopQuery":       handle(s.logs.stopQuery),

		"lambda.ListEventSourceMappings": handle(lambda.listEventSourceMappings),
	}
	return s, nil
}

func setDefaults(conf *Config) {
	conf.Retention = cmp.Or(conf.Retention, 168*time.Hour)
	conf.ShardBytes = cmp.Or(conf.ShardBytes, 256<<20)
	conf.JournalBytes = cmp.Or(conf.JournalBytes, 64<<20)
	conf.QueryRows = cmp.Or(conf.QueryRows, maxQueryRows)
	conf.Log = cmp.Or(conf.Log, slog.New(slog.DiscardHandler))
	if conf.Now == nil {
		conf.Now = time.Now
	}
}

func (s *Server) openServices() error {
	var err error
	if s.kinesis, err = openKinesis(s.conf); err != nil {
		return err
	}
	if s.events, err = openEvents(s.conf); err != nil {
		return err
	}
	if s.sqs, err = openSQS(s.conf, s.done); err != nil {
		return err
	}
	if s.events.rules, err = openRules(s.conf, s.sqs.queues, s.faults); err != nil {
		return err
	}
	s.secrets = openSecrets(s.conf)
	s.logs, err = openLogs(s.conf)
	return err
}

// Faults are the switchable faults of this server.
func (s *Server) Faults() *Faults { return s.faults }

// Stored returns a channel that is closed when a stream next stores records. The service has no such thing. On a laptop it spares a poller
// that would ask again and again.
func (s *Server) Stored() <-chan struct{} { return s.kinesis.nextStored() }

// SetSecret adds or changes a secret, as a rotation does.
func (s *Server) SetSecret(name, value string) { s.secrets.values.Store(name, value) }

// Close releases waiting clients, lets the others finish and closes the files. Later requests get 503.
func (s *Server) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	close(s.done)
	s.requests.Wait()
	return s.closeFiles()
}

func (s *Server) closeFiles() error {
	var errs []error
	if s.kinesis != nil {
		errs = append(errs, s.kinesis.close())
	}
	if s.events != nil {
		errs = append(errs, s.events.journal.close())
	}
	if s.sqs != nil {
		errs = append(errs, s.sqs.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
