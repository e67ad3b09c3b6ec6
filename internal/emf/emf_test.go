package emf_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/emf"
)

// The shape is that of the format's specification, whose schema requires each of these members.
func TestDirectiveIsAtTheTopOfTheLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).LogAttrs(context.Background(), slog.LevelInfo, "batch", slog.Int("published", 3),
		slog.String("FunctionName", "f"),
		emf.Directive(time.UnixMilli(1763875203123), []string{"FunctionName"}, emf.Metric{Name: "published", Unit: emf.Count}))
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.InDelta(t, 3.0, line["published"], 0)
	aws, err := json.Marshal(line["_aws"])
	require.NoError(t, err)
	require.JSONEq(t, `{"Timestamp":1763875203123,"CloudWatchMetrics":[
		{"Namespace":"rds-outbox-demo","Dimensions":[["FunctionName"]],"Metrics":[{"Name":"published","Unit":"Count"}]}]}`, string(aws))
}

func TestValues(t *testing.T) {
	t.Parallel()
	require.Empty(t, emf.Values(nil))
	require.Equal(t, []float64{0.001, 1.5}, emf.Values([]time.Duration{1500 * time.Millisecond, time.Millisecond}))
	for _, n := range []int{1, 99, 100, 101, 200, 201, 10_000} {
		var all []time.Duration
		for i := range n {
			all = append(all, time.Duration(n-i)*time.Second)
		}
		values := emf.Values(all)
		require.LessOrEqual(t, len(values), 100, n)
		require.GreaterOrEqual(t, len(values), min(n, 50), n)
		require.InDelta(t, float64(n), values[len(values)-1], 0, "the longest is kept")
		require.IsIncreasing(t, append([]float64{0}, values...))
	}
}
