package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// logLines returns the JSON lines of a log that have the trace as trace_id or among the trace_ids
// of a batch.
func logLines(t *testing.T, path, traceID string) (lines []map[string]any) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for text := range strings.Lines(string(content)) {
		var line map[string]any
		if !strings.HasSuffix(text, "\n") {
			continue // being written
		}
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		ids, _ := line["trace_ids"].([]any)
		if line["trace_id"] == traceID || slices.Contains(ids, any(traceID)) {
			lines = append(lines, line)
		}
	}
	return lines
}

// What a client gets back with its answer is all that is needed to find its request at every hop.
func TestOneTraceThroughEveryHop(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	d.post(t, 1) // the relay's load, and something that is not to be found
	labtest.Eventually(t, "the relay to stream", func() bool { return d.onBus(t) == 1 })
	response, err := http.Post(d.url+"/cars", "application/json", strings.NewReader(domain.Sample(0)))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusCreated, response.StatusCode)
	traceID := strings.Split(response.Header.Get("Traceresponse"), "-")[1]
	require.Len(t, traceID, 32)

	devLog, relayLog := filepath.Join(d.dir, ".data", "dev.log"), filepath.Join(d.dir, ".data", "walrelay.log")
	hop := func(path, msg string, n float64) (line map[string]any) {
		// Each hop writes its line after it has passed the event on, so the next hop's may come first.
		labtest.Eventually(t, "the line "+msg, func() bool {
			lines := logLines(t, path, traceID)
			i := slices.IndexFunc(lines, func(line map[string]any) bool { return line["msg"] == msg && line["hop"] == n })
			if i >= 0 {
				line = lines[i]
			}
			return i >= 0
		})
		return line
	}
	require.Equal(t, "POST /cars", hop(devLog, "request", 1)["route"])
	require.InDelta(t, 1.0, hop(relayLog, "put", 4)["put"], 0)
	require.InDelta(t, 1.0, hop(devLog, "batch", 5)["published"], 0)
	hop(devLog, "car stats", 6)
	// A hop that is slow may get the event again, and then writes its line again.
	kinds := func(path string) (all []string) {
		for _, line := range logLines(t, path, traceID) {
			all = append(all, line["msg"].(string))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	require.Equal(t, []string{"batch", "car stats", "request"}, kinds(devLog), "and nothing else is of this trace")
	require.Equal(t, []string{"put"}, kinds(relayLog))

	var onBus []awslocal.BusEvent
	require.NoError(t, awslocal.ReadBus(filepath.Join(d.dir, ".data", "aws"), func(e awslocal.BusEvent) error {
		if strings.Contains(string(e.Detail), traceID) {
			onBus = append(onBus, e)
		}
		return nil
	}))
	require.NotEmpty(t, onBus)
	var detail struct{ Traceparent string }
	require.NoError(t, json.Unmarshal(onBus[0].Detail, &detail))
	require.Equal(t, response.Header.Get("Traceresponse"), detail.Traceparent)
	require.Contains(t, onBus[0].TraceHeader, "Root=1-"+traceID[:8]+"-"+traceID[8:]+";")

	out, exit := outboxctl(t, d.dir, "where", traceID)
	require.Zero(t, exit, out)
	require.Regexp(t, `(?s)^event [0-9a-f-]{36}, trace `+traceID+`\n② .* v1, CarCreated.*③ .*④ .* insert.*⑤ not in.*⑥ .* on the bus`, out)
	require.Equal(t, 1, strings.Count(out, "event "), out)
}
