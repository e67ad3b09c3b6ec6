package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PeakMemory returns the most resident memory that a running process had, in MB, or 0 where there is no /proc. The maxrss of getrusage
// would be wrong, because Linux begins it with the memory of the process that forked.
func PeakMemory(pid int) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kilobytes * 1024 / 1e6
		}
	}
	return 0
}
