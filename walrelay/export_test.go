package walrelay

import "time"

// DrainFor sets how long the relay waits for answers when it ends.
func (r *Relay) DrainFor(d time.Duration) { r.drainFor = d }
