package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValues(t *testing.T) {
	t.Parallel()
	require.Zero(t, Values(nil).Median())
	require.Zero(t, Values(nil).Spread())
	require.Zero(t, Values{0, 0}.Spread(), "no median to divide by")
	unsorted := Values{3, 1, 2}
	require.InDelta(t, 2, unsorted.Median(), 0)
	require.Equal(t, Values{3, 1, 2}, unsorted, "the order is that of the rounds")
	require.InDelta(t, 2, Values{4, 1, 2, 3}.Median(), 0, "a value that was measured")
	require.InDelta(t, 0.5, Values{10, 15, 9}.Spread(), 1e-9, "up")
	require.InDelta(t, 0.9, Values{10, 11, 1}.Spread(), 1e-9, "down")
	require.Equal(t, Values{2, 4, 7}, Values{3, 1, 2, 4, 9, 4, 7}.medians(3), "the last one of what is left")
	require.Empty(t, Values(nil).medians(3))
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var v Values
	require.Zero(t, v.percentile(99))
	for i := range 200 {
		v = append(v, float64(200-i))
	}
	require.InDelta(t, 100, v.percentile(50), 0)
	require.InDelta(t, 198, v.percentile(99), 0)
	require.InDelta(t, 7, Values{7}.percentile(50), 0)
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for want, value := range map[string]float64{
		"0 x": 0, "0.00123 x": 0.0012345, "1.23 x": 1.2345, "999 x": 999.4, "1,000 x": 1000, "12,346 x": 12345.6, "123,456 x": 123456, "1,234,567 x": 1234567,
	} {
		require.Equal(t, want, figure(value, "x"))
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	row := Row{Unit: "rows/s", Ours: Values{85}, Limit: Values{100}, LimitName: "limit"}
	require.InDelta(t, 0.85, row.Ratio(), 1e-9)
	require.Zero(t, Row{Ours: Values{1}}.Ratio(), "no limit")

	require.True(t, row.atLeast(0.85).Reached)
	require.Equal(t, ">= 0.85 x limit", row.atLeast(0.85).Target)
	require.False(t, row.atLeast(0.86).Reached)
	require.False(t, Row{Ours: Values{1}}.atLeast(0.1).Reached, "nothing to compare with")

	require.True(t, row.atMost(85).Reached)
	require.Equal(t, "<= 85 rows/s", row.atMost(85).Target)
	require.False(t, row.atMost(84.9).Reached)
	require.Empty(t, row.Target, "the row itself stays as it is")
}

// sample has a row of each kind.
func sample() *Report {
	limited := Row{Hop: "relay", What: "rows <&> \"more\"", Unit: "rows/s", Ours: Values{50_000, 60_000, 40_000}, Limit: Values{100_000}, LimitName: "pg"}
	fast := Row{Hop: "relay", What: "fast", Unit: "rows/s", Ours: Values{500}, Limit: Values{100}, LimitName: "pg"}
	return &Report{
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Machine: "2 cores, linux/arm64", Go: "go1.26.0", PostgreSQL: "17.10", Rounds: 3, Quick: true,
		Rows: []Row{
			limited.atLeast(0.85), fast.atLeast(1.5),
			{Hop: "api", What: "known only", Unit: "ms", Ours: Values{1.5}, Limit: Values{1}, LimitName: "pg"},
			Row{Hop: "api", What: "alone", Unit: "MB", Ours: Values{20}}.atMost(16),
			{Hop: "api", What: "without the tool", Unit: "rows/s", Ours: Values{7}, LimitName: "pg", Missing: "install pg"},
			{Hop: "api", What: "a figure", Unit: "ms", Ours: Values{7}},
		},
	}
}

func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, write(&b))
	return b.String()
}

func TestText(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(written(t, sample().Text)), "\n")
	require.Equal(t, "2026-03-01T12:00:00Z · 2 cores, linux/arm64 · go1.26.0 · PostgreSQL 17.10 · medians of 3 rounds · quick: rough figures", lines[0])
	var cells [][]string
	for _, line := range lines[2:] {
		var row []string
		for cell := range strings.SplitSeq(line, "  ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				row = append(row, cell)
			}
		}
		cells = append(cells, row)
	}
	require.Equal(t, [][]string{
		{"HOP", "WHAT", "OURS", "LIMIT", "RATIO", "TARGET"},
		{"relay", "rows <&> \"more\"", "50,000 rows/s ±20 %", "100,000 rows/s (pg)", "0.50", "MISSED: >= 0.85 x pg"},
		{"relay", "fast", "500 rows/s ±0 %", "100 rows/s (pg)", "5.00", "reached: >= 1.50 x pg"},
		{"api", "known only", "1.5 ms ±0 %", "1 ms (pg)", "1.50", "-"},
		{"api", "alone", "20 MB ±0 %", "-", "-", "MISSED: <= 16 MB"},
		{"api", "without the tool", "7 rows/s ±0 %", "not measured: install pg", "-", "-"},
		{"api", "a figure", "7 ms ±0 %", "-", "-", "-"},
	}, cells)
	calm := sample()
	calm.Quick = false
	require.NotContains(t, written(t, calm.Text), "quick")
}

func TestJSONHasEveryRound(t *testing.T) {
	t.Parallel()
	var got Report
	require.NoError(t, json.Unmarshal([]byte(written(t, sample().JSON)), &got))
	require.Equal(t, *sample(), got)
}

func TestSVG(t *testing.T) {
	t.Parallel()
	type shape struct {
		Class string  `xml:"class,attr"`
		X     float64 `xml:"x,attr"`
		Width float64 `xml:"width,attr"`
		D     string  `xml:"d,attr"`
		Text  string  `xml:",chardata"`
	}
	var chart struct {
		Style string `xml:"style"`
		Rows  []struct {
			Title string  `xml:"title"`
			Bars  []shape `xml:"rect"`
			Marks []shape `xml:"path"`
			Texts []shape `xml:"text"`
		} `xml:"g"`
	}
	r := sample()
	r.Rows[2].What = strings.Repeat("ä", 200)
	require.NoError(t, xml.Unmarshal([]byte(written(t, r.SVG)), &chart))
	require.Contains(t, chart.Style, "prefers-color-scheme:dark")
	require.Len(t, chart.Rows, 3, "only what has a limit")
	bars := []struct {
		class string
		width float64
		mark  string // x of the target
		ratio string
		of    string
	}{
		{"missed", 100, "M650.0 ", "0.50", "50,000 rows/s of 100,000 rows/s"},
		{"reached", 400, "M780.0 ", "5.00", "500 rows/s of 100 rows/s"}, // cut off
		{"figure", 300, "", "1.50", "1.5 ms of 1 ms"},
	}
	for i, want := range bars {
		row := chart.Rows[i]
		require.Len(t, row.Bars, 1)
		require.Equal(t, want.class, row.Bars[0].Class)
		require.InDelta(t, 480, row.Bars[0].X, 0)
		require.InDelta(t, want.width, row.Bars[0].Width, 0.1)
		if want.mark == "" {
			require.Empty(t, row.Marks)
		} else {
			require.Len(t, row.Marks, 1)
			require.True(t, strings.HasPrefix(row.Marks[0].D, want.mark), row.Marks[0].D)
		}
		require.True(t, slices.ContainsFunc(row.Texts, func(s shape) bool { return s.Text == want.ratio }))
		require.True(t, slices.ContainsFunc(row.Texts, func(s shape) bool { return s.Text == want.of }))
	}
	require.Equal(t, `relay: rows <&> "more"`, chart.Rows[0].Title)
	require.Len(t, []rune(chart.Rows[2].Texts[0].Text), nameLength)
	require.Len(t, []rune(chart.Rows[2].Title), 205, "the whole name is in the title")

	require.NoError(t, xml.Unmarshal([]byte(written(t, (&Report{}).SVG)), &chart), "a run without a limit")
	require.ErrorIs(t, sample().SVG(brokenWriter{}), io.ErrClosedPipe)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
