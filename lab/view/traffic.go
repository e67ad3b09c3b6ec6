package view

import (
	"sync"
	"time"

	"rds-outbox-demo/lab/local"
)

// traffic counts what is under way at the stations, and how fast it moves.
type traffic struct {
	mu         sync.Mutex
	requests   map[int64]time.Time // under way, by their beginnings
	answered   meter
	refused    meter // 5xx
	records    meter // on the stream
	consumed   meter
	published  meter
	failures   meter                // entries that the bus did not accept
	again      meter                // records that the consumer got once more
	putting    int                  // entries under way
	batches    map[string]time.Time // invocations under way, by their ids
	inBatches  int                  // records in them
	suppressed int64                // deliveries that the subscriber did not count again
	changed    time.Time            // when the API last answered a change with success
}

func newTraffic() *traffic {
	return &traffic{requests: map[int64]time.Time{}, batches: map[string]time.Time{}}
}

func (t *traffic) locked(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
}

func (t *traffic) requested(began time.Time) {
	t.locked(func() { t.requests[began.UnixNano()] = began })
}

func (t *traffic) responded(now time.Time, r local.Request) {
	t.locked(func() {
		delete(t.requests, r.At.UnixNano())
		t.answered.add(now, 1)
		if r.Status < 300 {
			t.changed = now
		}
		if r.Status >= 500 {
			t.refused.add(now, 1)
		}
	})
}

func (t *traffic) record(now time.Time) { t.locked(func() { t.records.add(now, 1) }) }

func (t *traffic) invoked(b local.Batch) {
	t.locked(func() {
		t.batches[b.Invocation] = b.At
		t.inBatches += len(b.Records)
	})
}

func (t *traffic) redelivered(now time.Time, records int) {
	t.locked(func() { t.again.add(now, records) })
}

func (t *traffic) returned(now time.Time, b local.Batch) {
	t.locked(func() {
		delete(t.batches, b.Invocation)
		t.inBatches -= len(b.Records)
		t.consumed.add(now, b.Failed)
	})
}

func (t *traffic) puts(entries int) { t.locked(func() { t.putting += entries }) }

func (t *traffic) put(now time.Time, p local.Put) {
	t.locked(func() {
		t.putting -= len(p.Entries)
		for _, entry := range p.Entries {
			if !entry.Accepted() {
				t.failures.add(now, 1)
			}
		}
	})
}

func (t *traffic) accepted(now time.Time) { t.locked(func() { t.published.add(now, 1) }) }

func (t *traffic) suppress(duplicates int) { t.locked(func() { t.suppressed += int64(duplicates) }) }

// flow is traffic at one moment.
type flow struct {
	answered, refused, records, consumed, published, failures, again reading

	requests, putting, inBatches int
	oldestRequest, oldestBatch   time.Time // zero if there is none
	suppressed                   int64
	changed                      time.Time
}

func (t *traffic) flow(now time.Time) (f flow) {
	t.locked(func() {
		f = flow{
			answered: t.answered.read(now), refused: t.refused.read(now), records: t.records.read(now), consumed: t.consumed.read(now),
			published: t.published.read(now), failures: t.failures.read(now), again: t.again.read(now),
			requests: len(t.requests), putting: t.putting, inBatches: t.inBatches, suppressed: t.suppressed, changed: t.changed,
		}
		for _, at := range t.requests {
			f.oldestRequest = older(f.oldestRequest, at)
		}
		for _, at := range t.batches {
			f.oldestBatch = older(f.oldestBatch, at)
		}
	})
	return f
}

// older returns the earlier of two times. It ignores a zero time.
func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
