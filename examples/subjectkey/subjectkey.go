// Package subjectkey encrypts the payloads of events with a key for each aggregate. To erase the aggregate's personal data, erase its key.
// Rows of outbox, records of the stream, the bus's archive and copies at subscribers stay as they are and become unreadable at once. It is an
// example to copy. Nothing else uses it.
//
// The keys are in table subject_key (schema.sql), each wrapped by a master key that only Wrap and Unwrap use. The service calls Seal before it
// appends the event. Subscribers call Open, with a role that may read subject_key and a process that may unwrap. Neither may keep a key, because
// a kept key survives Erase. Erase is final after the last backup with the wrapped key has expired.
//
// Id, version, type and time of an event stay readable, so an inbox recognises duplicates and gaps
// also after Erase. None of them may be personal. For example, an aggregate id must not be an
// e-mail address.
package subjectkey

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/outbox"
)

// Schema makes table subject_key.
//
//go:embed schema.sql
var Schema string

// ErrErased says that the aggregate's key was erased. No retry helps.
var ErrErased = errors.New("the key of the aggregate was erased")

// Master wraps keys. File is one for tests and for a laptop, and KMS is one on AWS. Unwrap refuses
// any subject other than the one the key was wrapped with.
type Master interface {
	Wrap(ctx context.Context, key []byte, subject string) (wrapped []byte, err error)
	Unwrap(ctx context.Context, wrapped []byte, subject string) (key []byte, err error)
}

// Data is the eventData of a sealed event. In JSON Sealed is base64, so a payload of 44 KiB still fits into table outbox.
type Data struct {
	Sealed []byte `json:"sealed"` // nonce, ciphertext and tag of AES-256-GCM
}

// Seal returns event with its Data encrypted. It makes the aggregate's key when there is none. db
// is the transaction of the event, or a pool before that transaction. The key must not be committed
// after the event, because an event without its key is lost, while a key without an event is
// harmless. Seal returns ErrErased after Erase.
func Seal(ctx context.Context, db dbgen.DBTX, master Master, event outbox.Event) (outbox.Event, error) {
	subject := subjectOf(event.AggregateType, event.AggregateID)
	key, err := keyOf(ctx, db, master, subject)
	if errors.Is(err, pgx.ErrNoRows) {
		if err = makeKey(ctx, db, master, subject); err == nil {
			key, err = keyOf(ctx, db, master, subject) // may be the key of another transaction that was faster
		}
	}
	if err != nil {
		return event, fmt.Errorf("sealing event %s: %w", event.ID, err)
	}
	sealed := key.Seal(nil, nil, event.Data, associated(event.ID, subject))
	if event.Data, err = json.Marshal(Data{sealed}); err != nil {
		return event, fmt.Errorf("sealing event %s: %w", event.ID, err)
	}
	return event, nil
}

// Open returns the payload that was sealed. It returns ErrErased after Erase. After any other error
// the caller should retry. If that does not help, the event is not what the service wrote.
func Open(ctx context.Context, db dbgen.DBTX, master Master, event inbox.Event) (json.RawMessage, error) {
	var data Data
	err := json.Unmarshal(event.Data, &data)
	if err != nil {
		return nil, fmt.Errorf("reading sealed event %s: %w", event.ID, err)
	}
	subject := subjectOf(event.AggregateType, event.AggregateID)
	key, err := keyOf(ctx, db, master, subject)
	if err != nil {
		return nil, fmt.Errorf("opening event %s: %w", event.ID, err)
	}
	payload, err := key.Open(nil, nil, data.Sealed, associated(event.ID, subject))
	if err != nil {
		return nil, fmt.Errorf("opening event %s: %w", event.ID, err)
	}
	return payload, nil
}

// Erase makes every event of the aggregate unreadable. No later event of it can be sealed.
func Erase(ctx context.Context, db dbgen.DBTX, aggregateType, aggregateID string) error {
	const erase = "INSERT INTO subject_key (subject) VALUES ($1) ON CONFLICT (subject) DO UPDATE SET wrapped = NULL"
	if _, err := db.Exec(ctx, erase, subjectOf(aggregateType, aggregateID)); err != nil {
		return fmt.Errorf("erasing the key of %s %s: %w", aggregateType, aggregateID, err)
	}
	return nil
}

func keyOf(ctx context.Context, db dbgen.DBTX, master Master, subject string) (cipher.AEAD, error) {
	var wrapped []byte
	if err := db.QueryRow(ctx, "SELECT wrapped FROM subject_key WHERE subject = $1", subject).Scan(&wrapped); err != nil {
		return nil, fmt.Errorf("reading the key of the aggregate: %w", err)
	}
	if wrapped == nil {
		return nil, ErrErased
	}
	key, err := master.Unwrap(ctx, wrapped, subject)
	if err != nil {
		return nil, fmt.Errorf("unwrapping the key of the aggregate: %w", err)
	}
	return aead(key)
}

func makeKey(ctx context.Context, db dbgen.DBTX, master Master, subject string) error {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	wrapped, err := master.Wrap(ctx, key, subject)
	if err != nil {
		return fmt.Errorf("wrapping a new key: %w", err)
	}
	_, err = db.Exec(ctx, "INSERT INTO subject_key (subject, wrapped) VALUES ($1, $2) ON CONFLICT DO NOTHING", subject, wrapped)
	if err != nil {
		return fmt.Errorf("storing a new key: %w", err)
	}
	return nil
}

const keySize = 32 // bytes, for AES-256

// aead puts a random nonce before each ciphertext, which is safe for 2^32 events of one key.
func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("using a key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func subjectOf(aggregateType, aggregateID string) string { return aggregateType + "/" + aggregateID }

// associated returns the data that ties a ciphertext to its event. In another event the ciphertext
// does not open.
func associated(id uuid.UUID, subject string) []byte { return []byte(id.String() + "/" + subject) }
