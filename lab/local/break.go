package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
)

// ErrNotOurs means that what is to be broken is the user's own: a server of DATABASE_URL, a service of AWS_ENDPOINT_URL_*. Faults are
// for what this program has started.
var ErrNotOurs = errors.New("not ours to break")

// ErrNoSlot means that there is no slot to drop, and no relay that would make one.
var ErrNoSlot = errors.New("there is no slot: start the relay, which makes one")

// A Service is one that can be the local listener's, with its faults, or the user's own.
type Service string

// The services of the path.
const (
	Kinesis     Service = "kinesis"
	EventBridge Service = "events"
	SQS         Service = "sqs"
)

// CanBreak says why faults cannot strike a service; nil when they can.
func (s *Path) CanBreak(service Service) error {
	url := map[Service]string{Kinesis: s.clients.kinesisURL, EventBridge: s.clients.eventBridgeURL, SQS: s.clients.sqsURL}[service]
	if s.AWS == nil || url != s.clients.local {
		return fmt.Errorf("%w: %s is yours (AWS_ENDPOINT_URL_*)", ErrNotOurs, service)
	}
	return nil
}

// CanBreakDatabase says why the database cannot be stopped, and its slot not be dropped; nil when they can.
func (s *Path) CanBreakDatabase() error {
	if s.database == nil {
		return fmt.Errorf("%w: the database is yours (DATABASE_URL)", ErrNotOurs)
	}
	return nil
}

// DropSlot takes the slot from under the relay. The relays that run are killed for it, because the server drops no slot that is read, and
// started again: they find no slot, make one, and load the retained rows of outbox.
func (s *Path) DropSlot(ctx context.Context) error {
	if err := s.CanBreakDatabase(); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connecting to drop the slot: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	db := dbgen.New(conn)
	// A load that goes on would find its slot dropped in the middle of nothing.
	nobody := false
	err = await(ctx, func() error {
		_, err := db.SlotGet(ctx, s.slot)
		nobody = errors.Is(err, pgx.ErrNoRows) && !s.Relay.Running() && !s.SecondRelay.Running()
		if nobody {
			return nil
		}
		return err
	})
	if nobody {
		return ErrNoSlot
	}
	if err != nil {
		return fmt.Errorf("waiting for slot %s to be there: %w", s.slot, err)
	}
	defer s.pauseRelays(ctx)()
	err = await(ctx, func() error { return db.SlotDrop(ctx, s.slot) }) // refused while the server believes in a dead relay
	if err != nil {
		return fmt.Errorf("dropping slot %s: %w", s.slot, err)
	}
	return nil
}

// pauseRelays kills the relays that run; resume starts them again.
func (s *Path) pauseRelays(ctx context.Context) (resume func()) {
	var running []*Relay
	for _, relay := range []*Relay{s.SecondRelay, s.Relay} { // the standby first: it would take over
		if relay.Running() {
			relay.end(ctx, errPause)
			running = append(running, relay)
		}
	}
	return func() {
		for _, relay := range running {
			if err := relay.Start(); err != nil {
				s.fail(err)
			}
		}
	}
}

// StartSecondRelay starts another relay on the same slot and returns when it stands by, or streams because nobody else does.
func (s *Path) StartSecondRelay(ctx context.Context) error {
	if err := s.SecondRelay.Start(); err != nil {
		return err
	}
	err := await(ctx, func() error {
		content, err := os.ReadFile(s.SecondRelay.logPath)
		if err != nil {
			return err
		}
		if said := string(content); !strings.Contains(said, saysStandby) && !strings.Contains(said, `"msg":"streaming"`) {
			return errors.New("it has neither said that it stands by nor that it streams")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("starting the second relay: %w", err)
	}
	return nil
}

// KillRelay kills the relay that streams, or the first when neither does, and returns it: it is down until its Start.
func (s *Path) KillRelay(ctx context.Context) (*Relay, error) {
	victim := s.Relay
	if s.SecondRelay.streams() && !s.Relay.streams() {
		victim = s.SecondRelay
	}
	if !victim.Running() {
		return nil, errors.New("the relay is down already (make relay-start)")
	}
	victim.Kill(ctx)
	return victim, nil
}

// stopRelays stops both at the same time. One after the other, the standby would take over, and drain as well.
func (s *Path) stopRelays(ctx context.Context) {
	var stopping sync.WaitGroup
	for _, relay := range []*Relay{s.Relay, s.SecondRelay} {
		stopping.Go(func() { relay.Stop(ctx) })
	}
	stopping.Wait()
}

// poison claims to be a row of outbox, and no retry makes one of it. To whom it belongs nobody can tell.
const poison = `{"data":{"id":"poison: no event id","aggregate_type":"Car"},"metadata":{"record-type":"data","operation":"insert","schema-name":"public","table-name":"outbox"}}`

// PutPoison puts a record on the stream that can never be an event, between those of partition key key.
func (s *Path) PutPoison(ctx context.Context, key string) error {
	if err := s.CanBreak(Kinesis); err != nil {
		return err
	}
	_, err := s.clients.kinesis.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &s.clients.stream, PartitionKey: &key, Data: []byte(poison)})
	if err != nil {
		return fmt.Errorf("putting poison on the stream: %w", err)
	}
	return nil
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
