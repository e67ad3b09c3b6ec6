package labtest

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// AtMost reports a figure of a benchmark. With CHECK=1 in the environment a figure above the bound
// fails the benchmark. A bound is far above what is reached, so that a busy machine keeps it.
func AtMost(b *testing.B, figure, bound float64, unit string) {
	b.Helper()
	b.ReportMetric(figure, unit)
	if os.Getenv("CHECK") == "1" && figure > bound {
		b.Errorf("%.4g %s, more than %g", figure, unit, bound)
	}
}

// AllocsAtMost reports how often an operation of the benchmark allocates, from the call on until the
// returned function is called. With CHECK=1 in the environment more than bound fails the benchmark.
// The number is the same on every machine, but a few operations also count what is made once.
func AllocsAtMost(b *testing.B, bound float64) (done func()) {
	b.Helper()
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	return func() {
		b.Helper()
		runtime.ReadMemStats(&after)
		AtMost(b, float64((after.Mallocs-before.Mallocs)/uint64(b.N)), bound, "allocs/op") //nolint:gosec // N is positive
	}
}

// BenchmarkGrowth runs something with 10^5, 10^6 and 5*10^6 events, with -short with fewer, to see that it gets neither slower nor
// larger. run returns how long the events took, and how much memory the process had at most, in MB.
func BenchmarkGrowth(b *testing.B, run func(b *testing.B, events int) (took time.Duration, memory float64)) {
	sizes := []int{100_000, 1_000_000, 5_000_000}
	if testing.Short() {
		sizes = []int{10_000, 50_000, 100_000}
	}
	smallest := 0.0 // seconds an event
	for _, size := range sizes {
		b.Run(fmt.Sprintf("Events=%d", size), func(b *testing.B) {
			for b.Loop() {
				took, memory := run(b, size)
				each := took.Seconds() / float64(size)
				if smallest == 0 {
					smallest = each
				}
				b.ReportMetric(1/each, "events/s")
				AtMost(b, each/smallest, 2, "x-smallest")
				AtMost(b, memory, 80, "MB")
			}
		})
	}
}
