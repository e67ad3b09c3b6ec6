// Package claimcheck is for a payload that is too large for table outbox (60 KiB). The payload is
// an object in S3, and the event carries the object's key and hash. It is an example to copy.
// Nothing else uses it.
//
// The service calls CheckIn before it appends the event, and commits afterwards. A transaction that then fails leaves an object that
// no event names. Such an orphan is harmless, and the bucket's lifecycle rule deletes it. The other order could commit an event whose payload
// does not exist, and no retry could mend that.
//
// A subscriber calls Payload outside of its transaction, because S3 may be slow, and then passes
// the payload to inbox.Once. An error means that the message is delivered again. Payload refuses an
// object that differs from the one that CheckIn stored.
//
// An object must live longer than its event can come again. docs/payloads.md adds up how long that is.
package claimcheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"rds-outbox-demo/inbox"
	"rds-outbox-demo/outbox"
)

// Store keeps objects. Folder is one for tests and for a laptop, and S3 is one on AWS.
type Store interface {
	// Put returns nil after the object is durable. It may be called again with the same key and the same data.
	Put(ctx context.Context, key string, data []byte) error
	Get(ctx context.Context, key string) ([]byte, error)
}

// Data is the eventData of an event whose payload is an object.
type Data struct {
	Claim Claim `json:"claim"`
}

// Claim names the object.
type Claim struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"` // of the object, in lower case hex digits
}

// CheckIn stores the payload and returns event with the claim in the place of its Data. Append the returned event after it.
//
// The hash is part of the key. So if a first try has committed after all, a second try with the
// same event id and another payload cannot change its object.
func CheckIn(ctx context.Context, store Store, event outbox.Event, payload []byte) (outbox.Event, error) {
	hash := hashOf(payload)
	claim := Claim{Key: "claims/" + event.ID.String() + "/" + hash, SHA256: hash}
	if err := store.Put(ctx, claim.Key, payload); err != nil {
		return event, fmt.Errorf("storing the payload of event %s: %w", event.ID, err)
	}
	var err error
	if event.Data, err = json.Marshal(Data{claim}); err != nil {
		return event, fmt.Errorf("encoding the claim of event %s: %w", event.ID, err)
	}
	return event, nil
}

// Payload returns the payload that CheckIn has stored for the event.
func Payload(ctx context.Context, store Store, event inbox.Event) ([]byte, error) {
	var data Data
	if err := json.Unmarshal(event.Data, &data); err != nil {
		return nil, fmt.Errorf("reading the claim of event %s: %w", event.ID, err)
	}
	payload, err := store.Get(ctx, data.Claim.Key)
	if err != nil {
		return nil, fmt.Errorf("fetching the payload of event %s: %w", event.ID, err)
	}
	if hash := hashOf(payload); hash != data.Claim.SHA256 {
		return nil, fmt.Errorf("the object of event %s is not its payload: its SHA-256 is %s, and the event says %q", event.ID, hash, data.Claim.SHA256)
	}
	return payload, nil
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
