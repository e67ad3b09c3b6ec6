// Package retention deletes rows of outbox that are old enough and certainly on the stream, and idempotency keys that are over.
//
// In: a session on the database and the name of the slot that the path reads (walrelay's, or that of the DMS task). Out: fewer rows, or
// an error that says why none could go. Subscribers see nothing of it: the publication has inserts only, and the consumer skips DMS's
// delete records. Deleting again is harmless, also while another run does the same.
//
// Old is not published. created_at is when the writing transaction began: one that stays open for long commits a row that is due
// already and that no relay has seen. And rows wait in the WAL while a relay is down. The row is the only thing from which an event
// can be sent again, so it goes only when the slot proves that it is not needed: purge.go says how. Of idempotency keys none of this is
// true: keys.go.
package retention

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

const (
	// defaultBatch is how many rows one statement deletes: few enough to hold their locks for milliseconds.
	defaultBatch = 500
	// batchesPerWait: the slot is waited for once per so many batches. walrelay confirms about once a second, so that waiting for every
	// batch would be slower than some write.
	batchesPerWait = 20
	defaultWait    = 30 * time.Second
)

// Config says what to delete and which slot has to confirm it. Behind a field: the variable that programs take it from.
type Config struct {
	// Slot is the replication slot of the path (SLOT_NAME). Its confirmed position is the proof: another consumer's slot proves nothing.
	Slot string
	// Days is how long a row stays, by the database's clock (RETENTION_DAYS).
	Days int
	// StreamRetention is how long the stream keeps records. Days has to be longer by more than a day: what is lost downstream can be
	// repaired from the row for longer than from the stream.
	StreamRetention time.Duration
	// Batch is how many rows one statement deletes. Default: 500.
	Batch int
	// Wait is how long the slot is waited for. Default: 30 s; a relay that runs needs about one.
	Wait time.Duration
}

// Purger deletes by one configuration. It keeps no connection.
type Purger struct {
	slot  string
	hours int32
	batch int
	wait  time.Duration
}

const (
	day     = 24 * time.Hour
	maxDays = 36_500
)

var slotPattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// New checks the configuration; it does not connect.
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
	return &Purger{slot: c.Slot, hours: int32(c.Days * 24), batch: c.Batch, wait: c.Wait}, nil
}
