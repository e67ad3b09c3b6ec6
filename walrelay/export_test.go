package walrelay

import "time"

// DrainFor sets how long the relay waits for answers when it ends.
func (r *Relay) DrainFor(d time.Duration) { r.drainFor = d }

// MeasureEvery sets how often the relay measures its slot.
func (r *Relay) MeasureEvery(d time.Duration) { r.measureEvery = d }
