//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// All are the points that FAILPOINT may name.
var All = []Point{
	APIBeforeCommit, APIAfterCommit,
	RelayBeforeSlotCopy, RelayAfterSlotCopy, RelayBeforePut, RelayAfterPut, RelayBeforeConfirm, RelayAfterConfirm,
	ConsumerBeforePublish, ConsumerAfterPublish, ConsumerBeforePark, ConsumerAfterPark, ConsumerBeforeAnswer,
}

var (
	armed     Point
	remaining atomic.Int64
)

// FAILPOINT is "point" or "point:3": the hit at which the process ends, the first by default. A name that is no point ends the process
// at start: a test that waits for it would wait for ever.
func init() {
	value := os.Getenv("FAILPOINT")
	if value == "" {
		return
	}
	name, count, counted := strings.Cut(value, ":")
	hit := 1
	if counted {
		hit, _ = strconv.Atoi(count)
	}
	for _, p := range All {
		if string(p) == name && hit > 0 {
			armed = p
			remaining.Store(int64(hit))
			return
		}
	}
	fmt.Fprintf(os.Stderr, "FAILPOINT %q: no such point\n", value)
	os.Exit(2)
}

// Hit ends the process with SIGKILL if FAILPOINT names p.
func Hit(p Point) {
	if p == armed && remaining.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives nothing more may happen here
	}
}
