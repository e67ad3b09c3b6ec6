package main_test

import (
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
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

// A user has the id in the line of `make dev`, and what `curl -i` has shown. Each of them names the event.
func TestOutboxctlTakesTheIdsThatAUserSees(t *testing.T) {
	t.Parallel()
	d := startDev(t, newFolder(t))
	d.post(t, 1)
	lines := func() [][]string {
		return regexp.MustCompile(`(?m)^CarCreated  (\S+) v1  `).FindAllStringSubmatch(d.printed(), -1)
	}
	labtest.Eventually(t, "the line of another event", func() bool { return len(lines()) == 1 })
	response, err := http.Post(d.url+domain.Path, "application/json", strings.NewReader(domain.Sample(0)))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusCreated, response.StatusCode)
	aggregate, traceparent := path.Base(response.Header.Get("Location")), response.Header.Get("Traceresponse")
	require.Len(t, traceparent, len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	labtest.Eventually(t, "the event's line", func() bool { return len(lines()) == 2 })
	printed := lines()[1][1]
	require.NotEqual(t, aggregate, printed, "the line has the id of the car, which names all of its events")

	for what, name := range map[string]string{"event": printed, "aggregate": aggregate, "trace": strings.Split(traceparent, "-")[1], "traceparent": traceparent} {
		out, exit := outboxctl(t, d.dir, "where", name)
		require.Zero(t, exit, "%s: %s", what, out)
		require.Contains(t, out, "row: Car "+aggregate+" v1, CarCreated", what)
		require.Len(t, regexp.MustCompile(`(?m)^event `).FindAllString(out, -1), 1, "%s: %s", what, out)
		require.Contains(t, out, "event "+printed, what)

		out, exit = outboxctl(t, d.dir, "replay", "--id", name, "--replay-id", "by-"+what)
		require.Zero(t, exit, "%s: %s", what, out)
		require.Contains(t, out, "replay by-"+what+": sent 1 of 1 event of 1 aggregate,", what)
		labtest.Eventually(t, "a line of the replay with the same id", func() bool {
			return strings.Contains(d.printed(), "CarCreated  "+printed+" v1  ⑥ on the bus again (replay/by-"+what+")\n")
		})

		out, exit = outboxctl(t, d.dir, "redrive", name) // it is not parked
		require.Equal(t, 1, exit, "%s: %s", what, out)
		require.Equal(t, "outboxctl: redrive: none of the 0 messages is, or is of, "+name+"\n", out)
	}
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
