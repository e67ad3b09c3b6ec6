package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

// poisonMark in an event's data makes the bus refuse the event. The listener has this fault all the
// time.
const poisonMark = "poison-"

// path is the whole path as processes of the operating system, with what only chaos has beside it.
type path struct {
	*local.Path
	config     Config
	log        *slog.Logger
	version    int      // of PostgreSQL, the major one
	failpoints string   // folder in which a file arms the failpoint of its name
	env        []string // of every process

	earlier judge.Memory // of the rounds that were judged
	busRead int64        // how far they read the bus's journal

	pool *pgxpool.Pool // our own: writers and the checker
	// listener takes rules, which break its services.
	listener local.FaultClient
}

// startPath brings everything up, and returns once a request reaches the database.
func startPath(ctx context.Context, c Config, dir string, log *slog.Logger) (_ *path, err error) {
	p := &path{config: c, log: log, failpoints: filepath.Join(dir, "failpoints")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	if err := os.Mkdir(p.failpoints, 0o700); err != nil {
		return nil, fmt.Errorf("making the failpoints' folder: %w", err)
	}
	p.env = []string{
		"HOME=" + os.TempDir(), "FAILPOINT_DIR=" + p.failpoints, "SABOTAGE_RULE=" + c.Sabotage,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	}
	p.Path, err = local.Start(ctx, local.Config{
		Dir: dir, Root: c.Root, Relay: c.Relay, Program: c.Lab, Listen: "127.0.0.1:0", Env: p.env, Settings: local.ForChaos(),
		InOrder:  c.inOrder(),
		Postgres: c.PostgreSQL, Standby: c.Promote, Migrated: p.prepareDatabase,
		Standing: []awslocal.Fault{{
			Service: "events", Operation: "PutEvents", Match: poisonMark, Kind: awslocal.EntryError, Code: "MalformedDetail",
		}},
		JournalBytes: 1 << 40, // all of it is judged
		Progress:     func(string) {}, Log: log,
	})
	if err != nil {
		return nil, err
	}
	p.listener = local.FaultClient{URL: p.Services.Local}
	return p, p.await(ctx, "the API's answer", p.healthy)
}

func (p *path) stop() error {
	var err error
	if p.Path != nil {
		err = p.Close()
	}
	if p.pool != nil {
		p.pool.Close()
	}
	return err
}

// release lets a relay that was taken down run again. If that fails, whoever waits for the relay says so.
func (p *path) release() {
	if err := p.Relay.Start(); err != nil {
		p.log.Error("starting the relay", "error", err)
	}
}

func (p *path) healthy(ctx context.Context) error {
	status, answer, err := domain.Send(ctx, http.DefaultClient, http.MethodGet, p.APIURL+"/healthz", "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, answer)
	}
	return err
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

// holds makes a question for await. It is answered once the statement, which selects one boolean, says true.
func (p *path) holds(sql string, args ...any) func(context.Context) error {
	return func(ctx context.Context) error { return ask(ctx, p.pool, sql, args...) }
}

// ask returns an error unless the statement, which selects one boolean, says true.
func ask(ctx context.Context, db dbgen.DBTX, sql string, args ...any) error {
	var yes bool
	err := db.QueryRow(ctx, sql, args...).Scan(&yes)
	if err == nil && !yes {
		err = errors.New("not yet")
	}
	return err
}

func (p *path) slotExists() func(context.Context) error {
	return p.holds("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", p.Slot())
}

func (p *path) slotActive(want bool) func(context.Context) error {
	return p.holds("SELECT active = $2 FROM pg_replication_slots WHERE slot_name = $1", p.Slot(), want)
}

func (p *path) confirmed(lsn string) func(context.Context) error {
	return p.holds("SELECT confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", p.Slot(), lsn)
}
