package retention

import "time"

// Keep makes p keep rows for less than a day.
func (p *Purger) Keep(d time.Duration) { p.keep = d }
