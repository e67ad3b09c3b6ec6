// Package retention deletes rows of outbox that are old enough and certainly on the stream, and expired idempotency keys.
//
// In: a session on the database and the name of the slot that the path reads (walrelay's, or that of the DMS task). Out: fewer rows, or
// an error that says why none could be deleted. Subscribers do not see it, because the publication has inserts only, and the consumer
// skips DMS's delete records. Deleting again is harmless, also while another run does the same.
//
// An old row is not necessarily published. created_at is when the writing transaction began. A transaction that stays open for long
// commits a row that is already due and that no relay has seen. Rows also wait in the WAL while a relay is down. An event can be sent again
// only from its row, so the row is deleted only after the slot proves that it is not needed (purge.go). None of this holds for idempotency
// keys (keys.go).
package retention

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

const (
	// defaultBatch is how many rows one statement deletes. They are few enough to be locked for milliseconds only.
	defaultBatch = 500
	// batchesPerWait is how many batches one wait for the slot serves. walrelay confirms about once a second, so a wait for every batch
	// would be slower than some services write.
	batchesPerWait = 20
	defaultWait    = 30 * time.Second
)

// Config says what to delete and which slot has to confirm it. Programs take a field from the variable that its comment names.
type Config struct {
	// Slot is the replication slot of the path (SLOT_NAME). Its confirmed position is the proof. The slot of another
	// reader proves nothing.
	Slot string
	// Days is how long a row stays, by the database's clock (RETENTION_DAYS).
	Days int
	// StreamRetention is how long the stream keeps records. Days has to be longer by more than a day, so that a loss can be
	// repaired from the row for longer than from the stream.
	StreamRetention time.Duration
	// Batch is how many rows one statement deletes. Default: 500.
	Batch int
	// Wait is how long Purge waits for the slot. The default is 30 s, and a running relay needs about 1 s.
	Wait time.Duration
}

// Purger deletes by one configuration. It keeps no connection.
type Purger struct {
	slot  string
	keep  time.Duration
	batch int
	wait  time.Duration
}

func (p *Purger) hours() int32 { return int32(p.keep / time.Hour) }

const (
	day     = 24 * time.Hour
	maxDays = 36_500
)

var slotPattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// New checks the configuration. It does not connect.
func New(c Config) (*Purger, error) {
	if c.Batch == 0 {
		c.Batch = defaultBatch
	}
	if c.Wait == 0 {
		c.Wait = defaultWait
	}
	var errs []error
	if !slotPattern.MatchString(c.Slot) {
		errs = append(errs, fmt.Errorf("SLOT_NAME (Slot) is %q: set it to the name of the path's replication slot, 1 to 63 of a-z, 0-9 and _", c.Slot))
	}
	if c.StreamRetention < day {
		errs = append(errs, fmt.Errorf("the stream's retention (StreamRetention) is %s: give what Kinesis says, 24 h or more", c.StreamRetention))
	}
	if least := c.StreamRetention + day; c.Days > maxDays || time.Duration(c.Days)*day <= least {
		errs = append(errs, fmt.Errorf("RETENTION_DAYS (Days) is %d: set it above %g, the stream's retention and a day, and to %d at most",
			c.Days, least.Hours()/24, maxDays))
	}
	if c.Batch < 1 || c.Batch > 10_000 {
		errs = append(errs, fmt.Errorf("the batch (Batch) is %d: set it to 1 to 10000 rows", c.Batch))
	}
	if c.Wait < 0 {
		errs = append(errs, fmt.Errorf("the wait (Wait) is %s: set it to more than 0", c.Wait))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("configuring retention: %w", err)
	}
	return &Purger{slot: c.Slot, keep: time.Duration(c.Days) * day, batch: c.Batch, wait: c.Wait}, nil
}
