// Package jitter spreads waits, so that callers that failed together do not come back together.
package jitter

import (
	"math/rand/v2"
	"time"
)

// Draw returns a random time of at least 0 and less than d. d is greater than 0. Only a simulation, whose runs must repeat themselves,
// sets another source.
var Draw = rand.N[time.Duration]
