//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// All are the points that FAILPOINT may name.
var All = []Point{
	APIBeforeCommit, APIInTransaction, APIAfterCommit,
	RelayBeforeSlotCopy, RelayAfterSlotCopy, RelayBeforePut, RelayAfterPut, RelayBeforeConfirm, RelayAfterConfirm,
	ConsumerBeforePublish, ConsumerAfterPublish, ConsumerBeforePark, ConsumerAfterPark, ConsumerBeforeAnswer,
}

// Enabled reports whether this build has failpoints.
const Enabled = true

var (
	armed     Point
	remaining atomic.Int64
	folder    = os.Getenv("FAILPOINT_DIR")
)

// FAILPOINT is "point" or "point:3": the hit at which the process ends, the first by default. A name that is not a point ends the
// process at start, because a test that waits for it would wait for ever.
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

// Hit ends the process with SIGKILL if FAILPOINT names p, or if the folder FAILPOINT_DIR has a file of its name. It removes the file. So a
// running process can be armed, and the missing file proves the hit.
func Hit(p Point) {
	if p == armed && remaining.Add(-1) == 0 || folder != "" && os.Remove(filepath.Join(folder, string(p))) == nil {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives nothing more may happen here
	}
}
