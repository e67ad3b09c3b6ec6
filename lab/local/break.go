package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// NotNowError says why something cannot be done to the path now, and what to do first.
type NotNowError string

func (e NotNowError) Error() string { return string(e) }

// ErrNotOurs means that the fault would strike something external, such as the server of
// DATABASE_URL or a service of AWS_ENDPOINT_URL_*. Faults are only for what this program has
// started.
var ErrNotOurs error = NotNowError("not ours to break")

// ErrNoSlot means that there is no slot to drop, and no relay that would make one.
var ErrNoSlot error = NotNowError("there is no slot: start the relay, which makes one")

// A Service is one that can be the local listener's, with its faults, or the user's own.
type Service string

// The services of the path.
const (
	Kinesis     Service = "kinesis"
	EventBridge Service = "events"
	SQS         Service = "sqs"
)

// CanBreak returns why faults cannot strike a service, or nil when they can.
func (p *Path) CanBreak(service Service) error {
	if !p.isLocal(service) {
		return fmt.Errorf("%w: %s is yours (AWS_ENDPOINT_URL_*)", ErrNotOurs, service)
	}
	return nil
}

func (p *Path) isLocal(service Service) bool {
	url := map[Service]string{Kinesis: p.Services.KinesisURL, EventBridge: p.Services.EventBridgeURL, SQS: p.Services.SQSURL}[service]
	return p.Services.Local != "" && url == p.Services.Local
}

// CanBreakDatabase returns why the database cannot be stopped and its slot not be dropped, or nil
// when both can.
func (p *Path) CanBreakDatabase() error {
	if p.database == nil {
		return fmt.Errorf("%w: the database is yours (DATABASE_URL)", ErrNotOurs)
	}
	return nil
}

// DropSlot drops the relay's slot. It first kills the relays that run, because the server does not
// drop a slot that is read, and starts them again afterwards. They find no slot, make one, and load
// the retained rows of outbox. Each of meanwhile is called while they are down.
func (p *Path) DropSlot(ctx context.Context, meanwhile ...func() error) error {
	if err := p.CanBreakDatabase(); err != nil {
		return err
	}
	if p.DatabaseStopped() {
		return NotNowError("PostgreSQL is stopped: start it first")
	}
	// A load that goes on would find its slot dropped in the middle of nothing.
	nobody := false
	err := p.awaitDatabase(ctx, func(db *dbgen.Queries) error {
		_, err := db.SlotGet(ctx, p.slot)
		nobody = errors.Is(err, pgx.ErrNoRows) && !p.Relay.Running() && !p.SecondRelay.Running()
		if nobody {
			return nil
		}
		return err
	})
	if nobody {
		return ErrNoSlot
	}
	if err != nil {
		return fmt.Errorf("waiting for slot %s to be there: %w", p.slot, err)
	}
	defer p.pauseRelays(ctx)()
	for _, do := range meanwhile {
		if err := do(); err != nil {
			return err
		}
	}
	return p.DropIdleSlot(ctx)
}

// DropIdleSlot drops the slot as soon as the server allows it, which is after every relay has
// stopped reading and the server has noticed. It does nothing when there is no slot.
func (p *Path) DropIdleSlot(ctx context.Context) error {
	err := p.awaitDatabase(ctx, func(db *dbgen.Queries) error {
		err := db.SlotDrop(ctx, p.slot)
		if err == nil {
			return nil
		}
		if _, missing := db.SlotGet(ctx, p.slot); errors.Is(missing, pgx.ErrNoRows) {
			return nil // the answer to an earlier try was lost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dropping slot %s: %w", p.slot, err)
	}
	return nil
}

// pauseRelays kills the relays that run. resume starts them again.
func (p *Path) pauseRelays(ctx context.Context) (resume func()) {
	var running []*Relay
	for _, relay := range []*Relay{p.SecondRelay, p.Relay} { // the standby first: it would take over
		if relay.Running() {
			_ = relay.TakeDown(ctx) // one that has ended by itself just now is down as well
			running = append(running, relay)
		}
	}
	return func() {
		for _, relay := range running {
			if err := relay.Supervisor.Start(); err != nil {
				p.fail(err)
			}
		}
	}
}

// StartSecondRelay starts another relay on the same slot and returns when it stands by, or streams because nobody else does.
func (p *Path) StartSecondRelay(ctx context.Context) error {
	if p.DatabaseStopped() {
		return NotNowError("PostgreSQL is stopped: the second relay could not even stand by")
	}
	if err := p.SecondRelay.Start(); err != nil {
		return err
	}
	err := await(ctx, func() error {
		if p.SecondRelay.said.Load() == "" {
			return errors.New("it has neither said that it stands by nor that it streams")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("starting the second relay: %w", err)
	}
	return nil
}

// KillRelay kills the relay that streams, or the first when neither does, and returns it. It is down until its Start.
func (p *Path) KillRelay(ctx context.Context) (*Relay, error) {
	victim := p.Relay
	if p.SecondRelay.Streams() && !p.Relay.Streams() {
		victim = p.SecondRelay
	}
	if !victim.Running() {
		return nil, NotNowError("the relay is down already (make relay-start)")
	}
	return victim, victim.Kill(ctx)
}

// stopRelays stops both at the same time. One after the other, the standby would take over, and drain as well.
func (p *Path) stopRelays(ctx context.Context) {
	var stopping sync.WaitGroup
	for _, relay := range []*Relay{p.Relay, p.SecondRelay} {
		stopping.Go(func() { relay.Stop(ctx) })
	}
	stopping.Wait()
}

// Poison claims to be a row of outbox, and no retry makes one of it. To whom it belongs nobody can tell. token, which tells one such
// record from another, needs no escapes in JSON.
func Poison(token string) []byte {
	return []byte(`{"data":{"id":"poison: no event id","aggregate_type":"Car","token":"` + token + `"},"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"outbox"}}`)
}

// PutPoison puts a record on the stream that can never be an event, between those of partition key key.
func (p *Path) PutPoison(ctx context.Context, key string) error {
	return p.PutRecord(ctx, key, Poison(key))
}

// PutRecord puts a record on the stream that does not come from a relay.
func (p *Path) PutRecord(ctx context.Context, key string, data []byte) error {
	if err := p.CanBreak(Kinesis); err != nil {
		return err
	}
	_, err := p.Services.Kinesis().PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &p.Services.Stream, PartitionKey: &key, Data: data})
	if err != nil {
		return fmt.Errorf("putting a record on the stream: %w", err)
	}
	return nil
}

// awaitDatabase is await with a session of its own for each call, because the server may be away meanwhile.
func (p *Path) awaitDatabase(ctx context.Context, condition func(*dbgen.Queries) error) error {
	return await(ctx, func() error {
		conn, err := pgx.Connect(ctx, p.DatabaseURL)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		return condition(dbgen.New(conn))
	})
}

// await calls condition until it returns nil, and returns its last error when ctx ends before.
func await(ctx context.Context, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
