// Package canary commits an event of its own (②), so that somebody notices when none arrives at ⑥. Every hop in between treats it
// as any other event. It also keeps the slot of an idle database moving.
//
// In: a session of role outbox_canary. Out: a row of outbox, and later an event with source outbox.canary on the bus.
package canary

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/contracts/eventtypes"
	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// Beat commits one event and returns its id. Each beat is an aggregate of its own. One aggregate for all beats would need a row that
// counts its versions, and would always take the same shard.
func Beat(ctx context.Context, db dbgen.DBTX, now time.Time) (uuid.UUID, error) {
	beat := eventtypes.CanaryBeat{SentAt: now.UTC()}
	data, err := json.Marshal(beat)
	if err != nil {
		return uuid.Nil, fmt.Errorf("encoding the beat: %w", err)
	}
	event := outbox.Event{
		AggregateType: beat.AggregateType(), AggregateVersion: 1, Type: beat.EventType(), Data: data,
	}
	var aggregate uuid.UUID
	if aggregate, err = uuid.NewRandom(); err != nil {
		return uuid.Nil, fmt.Errorf("making an id: %w", err)
	}
	if event.ID, err = uuid.NewV7(); err != nil {
		return uuid.Nil, fmt.Errorf("making an id: %w", err)
	}
	event.AggregateID = aggregate.String()
	if err := outbox.Append(ctx, db, event); err != nil {
		return uuid.Nil, fmt.Errorf("committing the beat: %w", err)
	}
	return event.ID, nil
}
