package poller

import (
	"context"
	"time"
)

// lane delivers the records of its partition keys, one batch after the other.
type lane struct {
	shard *shard
	input chan []*record
	held  []*record // received and not yet in a batch
}

// run returns when input is closed and everything delivered, or when ctx ends.
func (l *lane) run(ctx context.Context) {
	for {
		batch := l.next(ctx)
		if batch == nil {
			return
		}
		l.deliver(ctx, batch)
	}
}

// next collects a batch. It waits for a first record, then up to the window for a full batch. nil
// is the end.
func (l *lane) next(ctx context.Context) []*record {
	if len(l.held) == 0 && !l.receive(ctx, nil) {
		return nil
	}
	window := time.NewTimer(l.shard.poller.config.Window)
	defer window.Stop()
	for {
		n, full := fit(l.held, l.shard.poller.config.BatchSize)
		if full || !l.receive(ctx, window.C) {
			if ctx.Err() != nil {
				return nil
			}
			batch := l.held[:n:n]
			l.held = l.held[n:]
			return batch
		}
	}
}

// receive adds what the reader has to held. It returns false at the end of the input, of the window, and of ctx.
func (l *lane) receive(ctx context.Context, window <-chan time.Time) bool {
	select {
	case records, open := <-l.input:
		l.held = append(l.held, records...)
		return open
	case <-window:
		return false
	case <-ctx.Done():
		return false
	}
}

// deliver invokes the function until each record of the batch is done or discarded, or ctx ends.
func (l *lane) deliver(ctx context.Context, batch []*record) {
	s := l.shard
	failures := 0
	for left := []work{{records: batch}}; len(left) > 0 && ctx.Err() == nil; {
		current := left[0]
		if n := s.poller.config.expired(current, time.Now()); n > 0 {
			if !s.discard(ctx, current.first(n), conditionAge) {
				return
			}
			if left[0].records = current.records[n:]; len(left[0].records) == 0 {
				left = left[1:]
			}
			continue
		}
		next := s.poller.config.after(current, s.invoke(ctx, current))
		s.finish(ctx, next.done)
		if len(next.discarded.records) > 0 && !s.discard(ctx, next.discarded, conditionRetries) {
			return
		}
		left = append(next.left, left[1:]...)
		if len(next.done)+len(next.discarded.records) > 0 {
			failures = 0
		}
		if len(next.left) > 0 {
			wait(ctx, backoff(failures))
			failures++
		}
	}
}
