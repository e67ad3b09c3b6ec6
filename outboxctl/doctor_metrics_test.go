package outboxctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The lines of testdata are those that a `make dev` with 8 cars wrote. TestOutboxctlKnowsARunningDev (lab) reads those of the programs
// as they are now.
func TestDoctorOfTheMetrics(t *testing.T) {
	t.Parallel()
	dev, relay := readFile(t, "testdata/dev.log"), readFile(t, "testdata/walrelay.log")
	ended := time.Date(2026, 11, 23, 11, 44, 9, 0, time.UTC)
	const half = `{"time":"2026-11-23T11:44:08Z","level":"INFO","msg":"batch","published":1000,"par`
	for name, tc := range map[string]struct {
		dev, relay string
		now        time.Time
		check      string
		state      state
		finding    string
	}{
		"Latency":                   {dev, relay, ended, "commit to bus", stateOK, "p50 0.04 s, p99 0.08 s of the last 8 events"},
		"Consumer":                  {dev, relay, ended, "consumer", stateOK, "published 8, retried 0, parked 0 since 11:44:05Z"},
		"Subscriber":                {dev, relay, ended, "subscriber", stateOK, "carstats: duplicates 0, gaps 0, late 0 since 11:44:05Z"},
		"Relay":                     {dev, relay, ended, "relay", stateOK, "0 KiB of WAL not confirmed and 0 KiB retained, 20s ago; put 8, retried 0 since 11:44:05Z"},
		"ALineThatIsBeingWritten":   {dev + half, relay, ended, "consumer", stateOK, "published 8,"},
		"WhatIsNoLineOfALog":        {"panic: x\n{}\n[1]\n" + dev, relay, ended, "consumer", stateOK, "published 8,"},
		"AnEmptyFile":               {"", relay, ended, "consumer", stateSkip, "no line of it in the last 15 minutes"},
		"OnlyRecentLinesCount":      {dev, relay, ended.Add(recent), "commit to bus", stateSkip, "no line of it in the last 15 minutes"},
		"SlowEvents":                {strings.Replace(dev, "[0.076]", "[60]", 1), relay, ended, "commit to bus", stateWarn, "p99 60.00 s"},
		"AlmostSlowEvents":          {strings.Replace(dev, "[0.076]", "[59.9]", 1), relay, ended, "commit to bus", stateOK, "p99 59.90 s"},
		"EventsOfALoad":             {strings.ReplaceAll(dev, "commit_to_bus_seconds", "x"), relay, ended, "commit to bus", stateSkip, "no event with a time of commit"},
		"ParkedEvents":              {strings.Replace(dev, `"parked":0`, `"parked":2`, 1), relay, ended, "consumer", stateWarn, "parked 2"},
		"EntriesSentAgain":          {strings.Replace(dev, `"retried":0`, `"retried":1`, 1), relay, ended, "consumer", stateWarn, "retried 1"},
		"EntriesSometimesAgain":     {strings.NewReplacer(`"retried":0`, `"retried":1`, `"published":5`, `"published":40`).Replace(dev), relay, ended, "consumer", stateOK, "published 43, retried 3"},
		"DuplicatesHappen":          {strings.Replace(dev, `"duplicates":0,"gaps":0,"late":0`, `"duplicates":3,"gaps":2,"late":1`, 1), relay, ended, "subscriber", stateOK, "duplicates 3, gaps 2, late 1"},
		"MessagesThatFailed":        {strings.Replace(dev, `"late":0,"failed":0`, `"late":0,"failed":4`, 1), relay, ended, "subscriber", stateWarn, "messages failed 4 times"},
		"RecordsSentAgain":          {dev, strings.Replace(relay, `"retried":0`, `"retried":9`, 1), ended, "relay", stateWarn, "retried 9"},
		"WALHeldBack":               {dev, strings.Replace(relay, `"slot_lag_bytes":0,"retained_wal_bytes":56`, `"slot_lag_bytes":5242880,"retained_wal_bytes":6291456`, 1), ended, "relay", stateOK, "5.0 MiB of WAL not confirmed and 6.0 MiB retained"},
		"ARelayThatHasGoneSilent":   {dev, relay, ended.Add(3 * time.Minute), "relay", stateWarn, "3m20s ago"},
		"ARelayThatWasSilentAWhile": {dev, relay, ended.Add(2 * time.Minute), "relay", stateOK, "2m20s ago"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := doctor{Setup: &Setup{MetricsLogs: []string{filepath.Join(dir, "dev.log"), filepath.Join(dir, "walrelay.log")}}, now: func() time.Time { return tc.now }}
			writeFile(t, d.MetricsLogs[0], tc.dev)
			writeFile(t, d.MetricsLogs[1], tc.relay)
			checks := d.metrics()
			require.Len(t, checks, 4)
			requireOnly(t, checks, tc.state, tc.check, tc.finding)
		})
	}

	t.Run("TheLastThousandEvents", func(t *testing.T) {
		t.Parallel()
		d := doctor{Setup: &Setup{MetricsLogs: []string{filepath.Join(t.TempDir(), "dev.log")}}, now: func() time.Time { return ended }}
		writeFile(t, d.MetricsLogs[0], strings.Replace(dev, "[0.076]", "[99]", 1)+strings.Repeat(dev, latencies/8))
		requireOnly(t, d.metrics(), stateOK, "commit to bus", "p50 0.04 s, p99 0.08 s of the last 1000 events")
	})

	t.Run("AFileThatIsMissing", func(t *testing.T) {
		t.Parallel()
		d := doctor{Setup: &Setup{MetricsLogs: []string{"testdata/dev.log", "testdata/none.log", "testdata"}}, now: func() time.Time { return ended }}
		checks := d.metrics()
		require.Equal(t, check{"metrics", stateSkip, "no file testdata/none.log", ""}, checks[0])
		require.Equal(t, stateFail, checks[1].State, "one that cannot be read is red: %v", checks[1])
		require.Equal(t, "published 8, retried 0, parked 0 since 11:44:05Z", named(checks, "consumer")[0].Finding)
	})

	t.Run("OnlyTheEndOfALargeFileIsRead", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "x.log")
		for content, expected := range map[string]string{"": "", "1": "", "1\n2": "1\n", "11\n2\n": "2\n", "1\n2\n3": "2\n", "123456": "", "1234\n": ""} {
			writeFile(t, path, content)
			got, err := lastLines(path, 4)
			require.NoError(t, err)
			require.Equal(t, expected, string(got), "%q", content)
		}
	})
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}
