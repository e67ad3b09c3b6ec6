package bench

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWorseNamesTheHop(t *testing.T) {
	t.Parallel()
	limited := Row{Hop: "relay", What: "rows", Ours: Values{38, 40, 36}, Limit: Values{100}, LimitName: "pg"}
	plain := Row{Hop: "relay", What: "CPU", Unit: "µs", Ours: Values{13, 12}}
	r := Report{Rows: []Row{
		limited, plain, // no bound
		limited.bounded(0.4), plain.bounded(12), // at it
		limited.bounded(0.41), plain.bounded(11),
		Row{Hop: "api", What: "requests", Missing: "install it"}.bounded(0.1),
	}}
	require.Equal(t, []string{
		"relay got worse: rows: 0.40 of pg at best, less than 0.41",
		"relay got worse: CPU: 12 µs at best, more than 11 µs",
		"api got worse: requests: not measured: install it",
	}, r.Worse())
	require.Empty(t, r.Open())
}

// Each verdict for both kinds of bound, on rounds that agree and on rounds that differ.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ours, limit Values
		bound       float64
		noisy       bool
		worse, open string
	}{
		"calm, within":                       {Values{60, 50}, Values{100, 110}, 0.5, false, "", ""},
		"calm, worse":                        {Values{40, 45}, Values{100, 110}, 0.5, false, "0.45 of pg at best, less than 0.50", ""},
		"as far apart as is calm":            {Values{100, 120, 80}, Values{100}, 1, false, "", ""},
		"noisy, worst round within":          {Values{60, 100}, Values{100, 110}, 0.5, true, "", ""},
		"noisy, no round within":             {Values{10, 20}, Values{100, 110}, 0.5, true, "", "not judged: rounds of ours differ by 100 % from their median, more than 20 %"},
		"noisy limit, some round within":     {Values{60, 60}, Values{100, 150}, 0.5, true, "", "not judged: rounds of pg differ by 50 % from their median, more than 20 %"},
		"noisy limit, worst round within":    {Values{90, 90}, Values{100, 150}, 0.5, true, "", ""},
		"no limit, calm, within":             {Values{12, 14}, nil, 15, false, "", ""},
		"no limit, calm, worse":              {Values{16, 17}, nil, 15, false, "16 ms at best, more than 15 ms", ""},
		"no limit, noisy, worst within":      {Values{1, 14}, nil, 15, true, "", ""},
		"no limit, noisy, some round within": {Values{10, 30}, nil, 15, true, "", "not judged: rounds of ours differ by 200 % from their median, more than 20 %"},
		"noisy without a bound":              {Values{10, 30}, nil, 0, true, "", ""},
	} {
		row := Row{Unit: "ms", Ours: test.ours, Limit: test.limit, LimitName: "pg"}.bounded(test.bound).judged()
		require.Equal(t, test.noisy, row.Noisy, name)
		require.Equal(t, test.worse, row.worse(), name)
		require.Equal(t, test.open, row.open(), name)
	}
}

// A target says nothing about a noisy row, and its ratio is not printed.
func TestNoisyRowsHaveNoRatio(t *testing.T) {
	t.Parallel()
	row := Row{Hop: "relay", What: "rows", Unit: "rows/s", Ours: Values{100, 200}, Limit: Values{100}, LimitName: "pg"}.atLeast(0.5)
	require.True(t, row.Reached)
	r := Report{Rows: []Row{row.judged(), Row{Hop: "relay", What: "CPU", Unit: "µs", Ours: Values{5, 9}}.atMost(4).judged()}}
	require.False(t, r.Rows[0].Reached)
	text := written(t, r.Text)
	require.Contains(t, text, "100 rows/s ±100 %  100 rows/s (pg)  -      not judged: rounds of ours differ by 100 % from their median, more than 20 %")
	require.NotContains(t, text, "MISSED")
	require.NotContains(t, written(t, r.SVG), "<g>")
}

// A hop is measured again until its rows are judged. What stays noisy is named, and is not a failure.
func TestMeasureUntilJudged(t *testing.T) {
	t.Parallel()
	calm, slow, noisy := Values{90, 100}, Values{10, 11}, Values{10, 90}
	for name, test := range map[string]struct {
		check    bool
		rounds   []Values // one of each attempt
		attempts int
		worse    []string
		open     []string
	}{
		"judged at once":        {true, []Values{calm}, 1, nil, nil},
		"without CHECK":         {false, []Values{noisy}, 1, nil, []string{"relay: rows: not judged: rounds of ours differ by 800 % from their median, more than 20 %"}},
		"noisy, then calm":      {true, []Values{noisy, calm}, 2, nil, nil},
		"worse, then calm":      {true, []Values{slow, calm}, 2, nil, nil},
		"noisy, then worse":     {true, []Values{noisy, slow}, 2, []string{"relay got worse: rows: 0.11 of pg at best, less than 0.50"}, nil},
		"noisy in all attempts": {true, []Values{noisy, noisy}, 2, nil, []string{"relay: rows: not judged: rounds of ours differ by 800 % from their median, more than 20 %"}},
		"worse in all attempts": {true, []Values{slow, slow}, 2, []string{"relay got worse: rows: 0.11 of pg at best, less than 0.50"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var progress bytes.Buffer
			e := &environment{Config: Config{Check: test.check, Progress: &progress}}
			made := 0
			rows, err := e.measureUntilJudged(t.Context(), hop{"relay", func(context.Context, *environment) ([]Row, error) {
				made++
				return []Row{Row{What: "rows", Ours: slices.Clone(test.rounds[made-1]), Limit: Values{100}, LimitName: "pg"}.bounded(0.5)}, nil
			}})
			require.NoError(t, err)
			require.Equal(t, test.attempts, made)
			require.Equal(t, made-1, bytes.Count(progress.Bytes(), []byte("bench: once more: ")))
			report := Report{Rows: rows}
			require.Equal(t, test.worse, report.Worse())
			require.Equal(t, test.open, report.Open())
		})
	}
	failed := errors.New("no disk")
	_, err := (&environment{}).measureUntilJudged(t.Context(), hop{"relay", func(context.Context, *environment) ([]Row, error) { return nil, failed }})
	require.ErrorIs(t, err, failed)
}
