// Package local runs the whole path ①-⑥ on this machine. Each member of it (the API, the AWS listener, the consumer behind Lambda's poller,
// the subscriber carstats, walrelay and PostgreSQL) is made by one function. In `make dev` and `make demo` all but the last two run in this
// process, and can be observed. In `make chaos` each is a process, because only a process can be killed.
//
// In: a data folder, and optionally a database or AWS endpoints of the user's own. Out: the API's address, a call for every event that
// reached the bus, with the times of its hops, and ways to break the path and to mend it.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/private"
	"rds-outbox-demo/lab/process"
	"rds-outbox-demo/migrate"
)

// Config of a Path. Dir, Root, Relay, Listen, Settings, Progress and Log are required, and OnEvent where the members run in this process.
type Config struct {
	Dir    string // data folder: everything that is kept between runs
	Root   string // folder with node_modules, where PostgreSQL's binaries are
	Relay  string // path of the walrelay program
	Listen string // address of the API, such as 127.0.0.1:3000
	// Program is the path of a lab program whose `part` command runs the members as processes. If
	// it is empty, they run in this process.
	Program string
	// Env is the environment of each process beside what the path adds.
	Env      []string
	Settings Settings
	// Slot is the relay's slot. The name is the server's, not the database's. Default outbox_relay.
	Slot string
	// Postgres is the major version of the local server. The default is the version of everything
	// else here.
	Postgres string
	// Standby lets the local server have a standby (AddStandby). Everything then reaches the server through an address that a promotion
	// leads elsewhere.
	Standby bool
	// InOrder makes the subscriber carstats count every version in order.
	InOrder bool
	// Durable lets commits survive a crash of the machine. A throw-away path does not need it.
	Durable bool
	// DatabaseURL is a server of the user's own instead of the local one.
	DatabaseURL string
	// Migrated is called after the migrations. It returns the URL that the relay gets. If it is
	// nil, the relay gets DatabaseURL.
	Migrated func(ctx context.Context, databaseURL string) (relayURL string, err error)
	// AWS names the external services.
	AWS Services
	// Standing faults of the local listener are in force from the start on, also when its process was killed.
	Standing []awslocal.Fault
	// JournalBytes is how much of the bus's journal is kept. Default awslocal's.
	JournalBytes int64
	// OnEvent is called for every event on the bus, one call at a time. It must not block.
	OnEvent func(Arrival)
	// Observe hears what passes each hop. If it is nil, nothing is observed, and that costs
	// nothing. Members in other processes cannot be observed.
	Observe *Observer
	// Progress is told in a few words what is being started.
	Progress func(string)
	Log      *slog.Logger
}

// Path is a running path.
type Path struct {
	APIURL      string
	DatabaseURL string
	Relay       *Relay
	// SecondRelay is not started. StartSecondRelay starts it.
	SecondRelay *Relay
	// AWS is the local listener, where faults can be switched on. It is nil when every service is
	// external, or when the listener is another process.
	AWS *awslocal.Server
	// Services are the AWS services, local or not.
	Services Services
	// Processes are the members in processes of their own. Without Config.Program they are nil.
	Processes struct{ API, AWS, Consumer, CarStats *process.Supervisor }

	config   Config
	slot     string
	relayURL string    // of the database, for the relay
	database *database // nil when it is the user's own
	carStats member    // nil when nobody fills its queue
	failed   chan error
	close    []func(context.Context) error // in the order of starting
}

// Start brings everything up in the order of dependence and returns once the API answers. With an error nothing is left running.
func Start(ctx context.Context, c Config) (_ *Path, err error) {
	p := &Path{config: c, slot: cmp.Or(c.Slot, "outbox_relay"), failed: make(chan error, 8)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	// The API's port comes first, because a taken port is the most likely thing to go wrong, and
	// the quickest to see.
	listener, err := p.listen(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("set PORT to a free port, or end the program that has this one: %w", err)
	}
	p.APIURL = "http://" + listener.Addr().String()
	if err := private.Folder(c.Dir); err != nil {
		return nil, err
	}
	if p.DatabaseURL, err = p.startDatabase(ctx, c); err != nil {
		return nil, err
	}
	if p.relayURL, err = p.migrate(ctx); err != nil {
		return nil, err
	}
	if err := p.startAWS(ctx, c); err != nil {
		return nil, err
	}
	if err := p.startFunctions(c); err != nil {
		return nil, err
	}
	c.Progress("relay")
	p.Relay, p.SecondRelay = p.newRelay(p.relayURL, "walrelay.log"), p.newRelay(p.relayURL, "walrelay-2.log")
	p.onClose(func(ctx context.Context) error { p.stopRelays(ctx); return nil })
	if err := p.Relay.Start(); err != nil {
		return nil, err
	}
	p.awaitStreaming(ctx)
	api := APIConfig{DatabaseURL: p.DatabaseURL, Log: c.Log, Observe: c.Observe}
	_, p.Processes.API, err = p.start(memberAPI, listener, api)
	return p, err
}

// listen makes a socket that is open until the path is closed. While a member is down, its clients
// wait for the next one.
func (p *Path) listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p.onClose(func(context.Context) error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return listener, nil
}

func (p *Path) migrate(ctx context.Context) (relayURL string, err error) {
	p.config.Progress("migrations")
	database, err := pgsession.ParseConfig(p.DatabaseURL)
	if err != nil {
		return "", fmt.Errorf("DATABASE_URL: %w", err)
	}
	_, err = migrate.Up(ctx, database, migrate.Options{LockWait: 20 * time.Second})
	if refused := (&pgconn.ConnectError{}); errors.As(err, &refused) && p.config.DatabaseURL != "" {
		return "", fmt.Errorf("start the server that DATABASE_URL names, or correct DATABASE_URL: %w", err)
	}
	if err != nil {
		return "", err
	}
	if p.config.Migrated == nil {
		return p.DatabaseURL, nil
	}
	return p.config.Migrated(ctx, p.DatabaseURL)
}

// startAWS opens the local listener, if any service is local, and looks whether the stream and the bus are there.
func (p *Path) startAWS(ctx context.Context, c Config) (err error) {
	local := ""
	var listener net.Listener
	if c.AWS.needsListener() {
		c.Progress("AWS listener")
		if listener, err = p.listen("127.0.0.1:0"); err != nil {
			return fmt.Errorf("listening for AWS calls: %w", err)
		}
		local = "http://" + listener.Addr().String()
	}
	if p.Services, err = c.AWS.complete(local); err != nil {
		return err
	}
	if listener != nil {
		aws := AWSConfig{
			Dir: p.AWSDir(), Stream: p.Services.Stream, Bus: p.Services.Bus, Settings: c.Settings, TellsDiscards: p.Services.DiscardQueueURL != "",
			JournalBytes: c.JournalBytes, Standing: c.Standing, Log: c.Log, Observe: c.Observe,
		}
		if c.Program == "" {
			if p.AWS, err = aws.open(); err != nil {
				return err
			}
			aws.server = p.AWS
		}
		if _, p.Processes.AWS, err = p.start(memberAWS, listener, aws); err != nil {
			return err
		}
	}
	if err := p.Services.ensureStream(ctx); err != nil {
		return err
	}
	return cdcconsumer.CheckBus(ctx, p.Services.EventBridge(), p.Services.Bus)
}

// startFunctions starts the consumer, and carstats where its queue is filled.
func (p *Path) startFunctions(c Config) (err error) {
	consumer := ConsumerConfig{Services: p.Services, Settings: c.Settings.Consumer, Checkpoint: p.CheckpointFile(), Log: c.Log, Observe: c.Observe}
	if c.Program == "" {
		consumer.tracker = newTracker(c.OnEvent, c.Observe)
	}
	if p.AWS != nil && c.AWS.KinesisURL == "" {
		consumer.stored = p.AWS.Stored
	}
	_, p.Processes.Consumer, err = p.start(memberConsumer, nil, consumer)
	if err != nil || p.Services.CarStatsURL == "" {
		return err
	}
	stats := CarStatsConfig{Services: p.Services, Settings: c.Settings.CarStats, InOrder: c.InOrder, DatabaseURL: p.DatabaseURL, Log: c.Log, Observe: c.Observe}
	p.carStats, p.Processes.CarStats, err = p.start(memberCarStats, nil, stats)
	return err
}

// awaitStreaming waits a little until the relay streams. What is committed before that comes with
// its load, without the times of its hops. It does not wait for a relay that has much to load or
// that cannot start, because commits are safe and the relay reports its own end.
func (p *Path) awaitStreaming(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = await(ctx, func() error {
		if !p.Relay.Streams() {
			return errors.New("the relay does not stream")
		}
		return nil
	})
}

// Failed delivers why a part of the path ended that cannot be started again by itself.
func (p *Path) Failed() <-chan error { return p.failed }

// closeTime is how long each part of the path may take to end. With one limit for all of them, a part could have none left when
// those before it were slow, and Close would fail although nothing is wrong. It is far more than any part needs, because a machine that is
// busy may not run a part for seconds. A person who does not want to wait presses Ctrl-C once more.
const closeTime = time.Minute

// Close stops everything against the order of starting, which takes a second or two. What is on its way stays in the WAL or the
// stream and arrives after the next start.
func (p *Path) Close() error {
	if p.AWS != nil {
		// What drains would run into faults that are still on, and take all of its time for nothing.
		for _, fault := range p.AWS.Faults().List() {
			fault.Off()
		}
	}
	var all error
	for i := len(p.close) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		all = errors.Join(all, p.close[i](ctx))
		cancel()
	}
	p.close = nil
	return all
}

func (p *Path) onClose(f func(context.Context) error) { p.close = append(p.close, f) }

func (p *Path) fail(err error) {
	select {
	case p.failed <- err:
	default: // the first few are enough
	}
}

// Dir is the data folder.
func (p *Path) Dir() string { return p.config.Dir }

// AWSDir is the folder of the local listener, with the bus's journal.
func (p *Path) AWSDir() string { return filepath.Join(p.config.Dir, "aws") }

// CheckpointFile is the poller's.
func (p *Path) CheckpointFile() string { return filepath.Join(p.config.Dir, "checkpoint.json") }

// Slot is the name of the relay's slot.
func (p *Path) Slot() string { return p.slot }
