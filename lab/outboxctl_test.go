package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// outboxctl runs the program in the folder of a `lab dev`, as another terminal would. exit is its exit code.
func outboxctl(t *testing.T, dir string, args ...string) (out string, exit int) {
	t.Helper()
	bin := programs(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "outboxctl"), args...)
	cmd.Dir = dir
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "AWS_") && !strings.HasPrefix(entry, "DATABASE_URL=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	content, err := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, "%v", err)
	return string(content), cmd.ProcessState.ExitCode()
}

func TestOutboxctlKnowsARunningDev(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	file := filepath.Join(d.dir, ".data", "outboxctl.env")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "a password is in it")
	d.post(t, 1)
	labtest.Eventually(t, "the relay to stream: rows of its load have no time of commit", func() bool { return d.onBus(t) == 1 })
	d.post(t, 2)
	labtest.Eventually(t, "the events", func() bool { return d.onBus(t) == 3 })

	out, exit := outboxctl(t, d.dir, "audit", "--grace", "0s")
	require.Zero(t, exit, out)
	require.Contains(t, out, "audit: ok: 3 events, 0 missing, 0 pending, 0 duplicates")

	var id string
	require.NoError(t, awslocal.ReadBus(filepath.Join(d.dir, ".data", "aws"), func(e awslocal.BusEvent) error {
		id = regexp.MustCompile(`"eventId":"([^"]+)"`).FindStringSubmatch(string(e.Detail))[1]
		return nil
	}))
	labtest.Eventually(t, "a line with the event's id", func() bool { return strings.Contains(d.printed(), "CarCreated  "+id+" v1  ③ ") })
	out, exit = outboxctl(t, d.dir, "where", id)
	require.Zero(t, exit, out)
	require.Regexp(t, `(?s)② .* row: Car .* v1, CarCreated.*③ .* committed at .*④ .* shardId-.*⑤ not in a failure queue.*⑥ .* on the bus.*where: last hop ⑥`, out)

	out, exit = outboxctl(t, d.dir, "doctor")
	require.Zero(t, exit, out)
	require.NotContains(t, out, "skip", out)
	require.Contains(t, out, "21 checks: 0 failed")

	require.NoError(t, d.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, <-d.ended)
	require.NoFileExists(t, file)
	out, exit = outboxctl(t, d.dir, "audit")
	require.Equal(t, 2, exit)
	require.Contains(t, out, "Start `make dev` here")
}

// In a cluster nobody else can tell when the log of a task is whole. Either output may be behind the other one.
func TestOutboxctlEndsBothOutputs(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "outboxctl"), "nothing")
	cmd.Env = append(os.Environ(), "LAST_LINE=the end")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.Error(t, cmd.Run())
	require.Equal(t, 2, cmd.ProcessState.ExitCode())
	require.True(t, strings.HasSuffix("\n"+out.String(), "\nthe end\n"), out.String())
	require.True(t, strings.HasSuffix(errs.String(), "\nthe end\n"), errs.String())
}
