package awslocal_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// judge is another emulator of Kinesis, an npm package that testdata/judge.js runs.
type judge struct {
	name string // of the package
	main string // what node runs of it
	args []string
	port string // that it asks for
	env  func(dir string) []string
	// codesOnly as in subject.
	codesOnly bool
}

// kinesalite's authors wrote its answers down from the service. Its last release is of 2020.
var kinesalite = judge{
	name: "kinesalite", main: "kinesalite/cli.js", args: []string{"--createStreamMs", "0", "--shardLimit", "1000"}, port: "4567",
	env: func(string) []string { return []string{"AWS_ACCOUNT_ID=" + awslocal.Account} },
}

// kinesis-local follows the API reference and is maintained, but words its errors itself. 4568 is its port without TLS.
var kinesisLocal = judge{
	name: "kinesis-local", main: "kinesis-local", port: "4568", codesOnly: true,
	env: func(dir string) []string {
		return []string{
			"KINESIS_MOCK_CERT_PATH=" + filepath.Join(dir, "server.json"), "CREATE_STREAM_DURATION=1ms", "SHARD_LIMIT=1000", "LOG_LEVEL=ERROR",
		}
	},
}

// need skips the test where node or the package is absent. In CI the test fails instead.
func (j judge) need(t *testing.T) (dir string) {
	t.Helper()
	absent := func(what string) {
		text := what + " is absent: install it with `npm ci --ignore-scripts` in the repository's root (Node 20.19 or newer)"
		labtest.Missing(t, text)
	}
	if _, err := exec.LookPath("node"); err != nil {
		absent("node")
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "node_modules", j.name))
	require.NoError(t, err)
	if _, err := os.Stat(dir); err != nil {
		absent("the npm package " + j.name)
	}
	return dir
}

// start runs the emulator until the test ends.
func (j judge) start(t *testing.T) *subject {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"judge.js", j.main}, j.args...)...) // killed when the test ends
	cmd.Dir, cmd.Env = "testdata", append(j.env(j.need(t)), "PATH="+os.Getenv("PATH"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(stdout); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		for range lines { // Wait must not come before the end of the output
		}
		_ = cmd.Wait()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("%s said:\n%s", j.name, stderr.String())
		}
	})
	line := func(prefix string) string {
		timeout := time.After(labtest.Patience)
		for {
			select {
			case line, ok := <-lines:
				require.True(t, ok, "%s ended", j.name)
				if rest, ok := strings.CutPrefix(line, prefix); ok {
					return rest
				}
			case <-timeout:
				require.Fail(t, j.name+" does not say "+prefix)
			}
		}
	}
	s := &subject{codesOnly: j.codesOnly, conf: awslocal.SDKConfig("http://127.0.0.1:" + line("listening "+j.port+" "))}
	s.move = func(d time.Duration) {
		_, err := fmt.Fprintln(stdin, d.Milliseconds())
		require.NoError(t, err)
		line("passed")
	}
	return s
}
