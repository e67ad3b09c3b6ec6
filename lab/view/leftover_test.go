package view

import (
	"bufio"
	"bytes"
	"context"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/local"
)

// A load opens connections at every hop. An SDK client that was made for one call would keep its
// connection, and each connection costs goroutines at both ends.
func TestALoadLeavesNoGoroutinesBehind(t *testing.T) {
	t.Parallel()
	// A new goroutine inherits the labels, so other tests' goroutines are not counted.
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("of", t.Name())))
	r := newRig(t, t.TempDir())
	before := labelled(t)
	require.Positive(t, before)
	r.load.set(maxLoad)
	labtest.Eventually(t, "a thousand events on the bus", func() bool { return r.totals().OnBus > 1000 })
	under := labelled(t)
	r.load.set(0)
	for range 100 { // the view asks as long as it runs
		_, err := r.path.Depths(t.Context())
		require.NoError(t, err)
	}
	// All pollers have connected by now. A connection costs four goroutines at most, both ends
	// together.
	limit := before + 4*local.ForPeople().CarStats.Concurrency
	labtest.Eventually(t, "goroutines as before", func() bool { return labelled(t) <= limit })
	t.Logf("goroutines before, under load and after: %d, %d, %d", before, under, labelled(t))
}

// labelled counts the goroutines with this test's label.
func labelled(t *testing.T) (n int) {
	t.Helper()
	var profile bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	stack := regexp.MustCompile(`^(\d+) @`)
	count := 0
	for lines := bufio.NewScanner(&profile); lines.Scan(); {
		if match := stack.FindStringSubmatch(lines.Text()); match != nil {
			count, _ = strconv.Atoi(match[1])
		} else if strings.HasPrefix(lines.Text(), "# labels:") && strings.Contains(lines.Text(), t.Name()) {
			n += count
		}
	}
	return n
}
