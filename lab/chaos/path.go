package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/part"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/process"
	"rds-outbox-demo/migrate"
)

const (
	streamName = "chaos-outbox"
	busName    = "chaos-outbox"
	queueName  = "chaos-failures"
	statsQueue = "chaos-carstats"
	logGroup   = "/aws/events/chaos"
	slotName   = "outbox_relay"
)

// poisonMark in an event's data is what the bus refuses for its content, whatever else happens: the standing fault of the listener.
const poisonMark = "poison-"

// path is the whole path as processes of the operating system.
type path struct {
	dir        string
	binaries   string // of PostgreSQL
	log        *slog.Logger
	port       int // of PostgreSQL, the same after every restart
	version    int // of PostgreSQL, the major one
	postgres   *postgres.Server
	failpoints string // folder in which a file arms the failpoint of its name

	api, aws, relay, consumer *member
	carstats                  *member // the subscriber
	apiURL                    string
	awsURL                    string
	relayConfig               process.Config
	env                       []string // of every part and of outboxctl

	pool    *pgxpool.Pool // our own: writers and the checker
	kinesis *kinesis.Client
	sqs     *sqs.Client
	faults  part.FaultClient
	close   []func()
}

// startPath brings everything up, and returns once a request reaches the database.
func startPath(ctx context.Context, c Config, dir string, log *slog.Logger) (_ *path, err error) {
	p := &path{dir: dir, log: log, failpoints: filepath.Join(dir, "failpoints")}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if err := os.Mkdir(p.failpoints, 0o700); err != nil {
		return nil, fmt.Errorf("making the failpoints' folder: %w", err)
	}
	if p.binaries, err = postgres.FindVersion(c.Root, cmp.Or(c.PostgreSQL, postgres.Version)); err != nil {
		return nil, err
	}
	if p.port, err = quietPort(); err != nil {
		return nil, err
	}
	if err := p.startPostgres(ctx); err != nil {
		return nil, err
	}
	p.close = append(p.close, func() { _ = p.postgres.Stop(context.Background()) })
	database, err := pgx.ParseConfig(p.postgres.URL())
	if err != nil {
		return nil, err
	}
	if _, err := migrate.Up(ctx, database, migrate.Options{}); err != nil {
		return nil, err
	}
	if p.pool, err = pgxpool.New(ctx, p.postgres.URL()+"&application_name=chaos"); err != nil {
		return nil, fmt.Errorf("opening a pool: %w", err)
	}
	p.close = append(p.close, p.pool.Close)
	if err := p.prepareDatabase(ctx); err != nil {
		return nil, err
	}
	if err := p.startMembers(c); err != nil {
		return nil, err
	}
	return p, p.await(ctx, "the API's answer", p.healthy)
}

func (p *path) startMembers(c Config) error {
	apiSocket, apiURL, err := p.listen()
	if err != nil {
		return err
	}
	awsSocket, awsURL, err := p.listen()
	if err != nil {
		return err
	}
	p.apiURL, p.awsURL = apiURL, awsURL
	aws := awslocal.SDKConfig(awsURL)
	p.kinesis, p.sqs, p.faults = kinesis.NewFromConfig(aws), sqs.NewFromConfig(aws), part.FaultClient{URL: awsURL}

	refuse, err := json.Marshal([]awslocal.Fault{{
		Service: "events", Operation: "PutEvents", Match: poisonMark, Kind: awslocal.EntryError, Code: "MalformedDetail",
	}})
	if err != nil {
		return err
	}
	p.env = []string{
		"HOME=" + os.TempDir(), "FAILPOINT_DIR=" + p.failpoints, "SABOTAGE_RULE=" + c.Sabotage,
		"AWS_REGION=" + awslocal.Region, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_ENDPOINT_URL=" + awsURL,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"STREAM_NAME=" + streamName, "SLOT_NAME=" + slotName, "EVENT_BUS_NAME=" + busName,
		"FAILURE_QUEUE_NAME=" + queueName, "FAILURE_QUEUE_URL=" + awslocal.QueueURL(awsURL, queueName),
		"CARSTATS_QUEUE_NAME=" + statsQueue, "CARSTATS_QUEUE_URL=" + awslocal.QueueURL(awsURL, statsQueue),
		"AWS_DIR=" + p.awsDir(), "STANDING_FAULTS=" + string(refuse), "CHECKPOINT_FILE=" + p.checkpointFile(),
	}
	start := func(name, program string, socket *os.File, args []string, more ...string) (*member, error) {
		output, err := os.Create(filepath.Join(p.dir, name+".log"))
		if err != nil {
			return nil, err
		}
		p.close = append(p.close, func() { _ = output.Close() })
		m := startMember(name, process.Config{
			Program: program, Args: args, Env: slices.Concat(p.env, more), Output: output, Listener: socket,
		}, p.log)
		p.close = append(p.close, m.stop)
		return m, nil
	}
	if p.aws, err = start("aws", c.Lab, awsSocket, []string{"part", "aws"}, "BUS_LOG_GROUP="+logGroup); err != nil {
		return err
	}
	if p.consumer, err = start("consumer", c.Lab, nil, []string{"part", "consumer"}); err != nil {
		return err
	}
	p.carstats, err = start("carstats", c.Lab, nil, []string{"part", "carstats"}, "DATABASE_URL="+p.postgres.URL()+"&application_name=carstats")
	if err != nil {
		return err
	}
	relayURL, err := p.relayURL()
	if err != nil {
		return err
	}
	if p.relay, err = start("relay", c.Relay, nil, nil, "DATABASE_URL="+relayURL); err != nil {
		return err
	}
	p.relayConfig = p.relay.config
	p.api, err = start("api", c.Lab, apiSocket, []string{"part", "api"}, "DATABASE_URL="+p.postgres.URL()+"&application_name=carapi")
	return err
}

func (p *path) awsDir() string         { return filepath.Join(p.dir, "aws") }
func (p *path) checkpointFile() string { return filepath.Join(p.dir, "checkpoint.json") }

// listen makes a socket that outlives the processes that serve it.
func (p *path) listen() (*os.File, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, "", fmt.Errorf("listening: %w", err)
	}
	p.close = append(p.close, func() { _ = file.Close() })
	return file, "http://" + listener.Addr().String(), nil
}

// quietPort is free, and below those that the system gives to outgoing connections: one of them could take it while the server is down.
func quietPort() (int, error) {
	var err error
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("finding a port for PostgreSQL: %w", err)
}

func (p *path) startPostgres(ctx context.Context) error {
	server, err := postgres.Start(ctx, postgres.Config{
		Dir: filepath.Join(p.dir, "postgres"), Binaries: p.binaries, Port: p.port,
		Settings: map[string]string{
			"wal_sender_timeout":        "3s", // so that a frozen relay is seen as one
			"max_prepared_transactions": "10",
		},
	})
	if err != nil {
		return err // the one that has ended stays: stopping it again does nothing
	}
	p.postgres = server
	return nil
}

func (p *path) healthy(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.apiURL+"/healthz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// patience is how long anything is waited for that must happen.
const patience = 60 * time.Second

// await asks again and again until the answer is no error.
func (p *path) await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := ask(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (%w)", what, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// slot is what the server says of the relay's slot.
type slot struct {
	status    string
	active    bool
	confirmed string // LSN
}

var errNoSlot = errors.New("there is no slot")

func (p *path) slot(ctx context.Context) (s slot, err error) {
	err = p.pool.QueryRow(ctx, `SELECT coalesce(wal_status, ''), active, coalesce(confirmed_flush_lsn::text, '')
		FROM pg_replication_slots WHERE slot_name = $1`, slotName).Scan(&s.status, &s.active, &s.confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoSlot
	}
	return s, err
}

func (p *path) stop() {
	for i := len(p.close) - 1; i >= 0; i-- {
		p.close[i]()
	}
}
