package judge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Arrivals collects what the bus accepts, in the bus's order, and waits for it. T is what its user keeps of an arrival. The zero
// value is ready. It is safe for concurrent use.
type Arrivals[T any] struct {
	mu          sync.Mutex
	all, firsts []T
	known       map[uuid.UUID]bool
	came        chan struct{} // closed by the next arrival
}

// Add takes one arrival of an event.
func (a *Arrivals[T]) Add(id uuid.UUID, arrival T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[uuid.UUID]bool{}
	}
	a.all = append(a.all, arrival)
	if !a.known[id] {
		a.known[id] = true
		a.firsts = append(a.firsts, arrival)
	}
	if a.came != nil {
		close(a.came)
		a.came = nil
	}
}

// Wait returns nil when so many different events have arrived. It gives up with an error after nothing has come for as long as
// patience.
func (a *Arrivals[T]) Wait(ctx context.Context, events int, patience time.Duration) error {
	for {
		have, came := a.look()
		if have >= events {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-came:
		case <-time.After(patience):
			return fmt.Errorf("%d of %d events reached the bus, and nothing more came for %s", have, events, patience)
		}
	}
}

// Settle returns after nothing has arrived for as long as quiet.
func (a *Arrivals[T]) Settle(ctx context.Context, quiet time.Duration) {
	for {
		_, came := a.look()
		select {
		case <-ctx.Done():
			return
		case <-came:
		case <-time.After(quiet):
			return
		}
	}
}

func (a *Arrivals[T]) look() (events int, came <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.came == nil {
		a.came = make(chan struct{})
	}
	return len(a.firsts), a.came
}

// Take returns all arrivals, and of each event the first, both in the bus's order, and begins anew.
func (a *Arrivals[T]) Take() (all, firsts []T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, firsts = a.all, a.firsts
	a.all, a.firsts, a.known = nil, nil, nil
	return all, firsts
}
