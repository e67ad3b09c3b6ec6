// Package scripts has the scripts of the Makefile and their tests. The tests run the real scripts
// with an `aws` on PATH that plays answers and writes down its calls. That `aws` is this test
// binary itself, under another name.
package scripts

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answer is what one call prints and how it ends.
type answer struct {
	Out, Err string
	Exit     int
}

// world maps words to answers. A call gets the answers of the entry whose words are all among its
// own. Of several such entries, the one with the most words counts. The first answer is for the
// first call and so on. The last answer is also for all later calls.
type world map[string][]answer

func out(text string) []answer   { return []answer{{Out: text + "\n"}} }
func fails(text string) []answer { return []answer{{Err: "\n" + text + "\n", Exit: 254}} }

func TestMain(m *testing.M) {
	if dir := os.Getenv("STUB_DIR"); dir != "" {
		os.Exit(play(dir, append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...)))
	}
	os.Exit(m.Run())
}

// play is the stub's main.
func play(dir string, call []string) int {
	appendLine(dir, "calls", strings.Join(call, " "))
	if call[0] == "migrate" {
		for _, variable := range []string{"DATABASE_URL", "PGUSER", "PGPASSWORD"} {
			appendLine(dir, "environment", variable+"="+os.Getenv(variable))
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, "world.json"))
	var w world
	if err == nil {
		err = json.Unmarshal(content, &w)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stub:", err)
		return 99
	}
	best, words := "", -1
	for key := range w {
		wanted := strings.Fields(key)
		if len(wanted) > words && !slices.ContainsFunc(wanted, func(word string) bool { return !slices.Contains(call, word) }) {
			best, words = key, len(wanted)
		}
	}
	if words < 0 {
		appendLine(dir, "unexpected", strings.Join(call, " "))
		fmt.Fprintln(os.Stderr, "stub: unexpected call")
		return 98
	}
	counter := filepath.Join(dir, "count-"+strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, best))
	times, _ := os.ReadFile(counter)
	_ = os.WriteFile(counter, append(times, '.'), 0o600)
	a := w[best][min(len(times), len(w[best])-1)]
	// `aws lambda invoke` writes the function's answer into a file.
	if i := slices.IndexFunc(call, func(word string) bool { return strings.HasSuffix(word, "/answer") }); i >= 0 {
		_ = os.WriteFile(call[i], []byte(a.Err), 0o600)
		a.Err = ""
	}
	fmt.Fprint(os.Stdout, a.Out)
	fmt.Fprint(os.Stderr, a.Err)
	return a.Exit
}

func appendLine(dir, name, line string) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	_, _ = file.WriteString(line + "\n")
	_ = file.Close()
}

// result is how a script ended.
type result struct {
	Out, Err    string
	Exit        int
	Calls       []string // of the stubs, one line each
	Environment []string // that bin/migrate was given
}

// called returns how often the stubs were called with all these words.
func (r result) called(words string) int {
	n := 0
	for _, call := range r.Calls {
		fields := strings.Fields(call)
		if !slices.ContainsFunc(strings.Fields(words), func(word string) bool { return !slices.Contains(fields, word) }) {
			n++
		}
	}
	return n
}

// errorLine is the only line of standard error that is not progress.
func (r result) errorLine(t *testing.T) string {
	t.Helper()
	require.NotZero(t, r.Exit, "out: %s\nerr: %s", r.Out, r.Err)
	return strings.TrimSpace(r.Err)
}

// run calls a script in a copy of the repository, with stubs in place of aws, go, osls and bin/migrate, and with a sleep that does not.
func run(t *testing.T, w world, env []string, script string, args ...string) result {
	t.Helper()
	root, stubs := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	for _, dir := range []string{"scripts", "bin", "node_modules/.bin", "internal/rdsdb"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	sources, err := filepath.Glob("*.sh")
	require.NoError(t, err)
	for _, name := range sources {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, "scripts", name), content, 0o755))
	}
	regions, err := os.ReadFile("regions.txt")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "scripts/regions.txt"), regions, 0o600))
	template, err := os.ReadFile("../dms-setup.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "dms-setup.yaml"), template, 0o600))
	nothing, err := exec.LookPath("true")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(nothing, filepath.Join(stubs, "sleep")))
	for _, path := range []string{filepath.Join(stubs, "aws"), filepath.Join(stubs, "go"), filepath.Join(root, "bin/migrate"), filepath.Join(root, "node_modules/.bin/osls")} {
		require.NoError(t, os.Symlink(self, path))
	}
	content, err := json.Marshal(w)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(stubs, "world.json"), content, 0o600))

	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", script), args...)
	cmd.Env = append([]string{
		"PATH=" + stubs + ":" + os.Getenv("PATH"), "HOME=" + root, "STUB_DIR=" + stubs,
		"GORACE=atexit_sleep_ms=0", // the race detector would sleep a second in every stub
	}, env...)
	var outs, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &outs, &errs
	_ = cmd.Run()
	require.Empty(t, lines(t, filepath.Join(stubs, "unexpected")), "calls that nobody answers")
	return result{
		Out: outs.String(), Err: errs.String(), Exit: cmd.ProcessState.ExitCode(),
		Calls: lines(t, filepath.Join(stubs, "calls")), Environment: lines(t, filepath.Join(stubs, "environment")),
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	defer file.Close()
	var all []string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		all = append(all, scanner.Text())
	}
	return all
}

// with returns the world with other entries.
func (w world) with(changes world) world {
	all := maps.Clone(w)
	maps.Copy(all, changes)
	return all
}

const (
	mainStatus    = "describe-stacks rds-outbox-demo-dev Stacks[0].StackStatus"
	mainOutput    = "describe-stacks rds-outbox-demo-dev Stacks[0].Outputs[].[OutputKey,OutputValue]"
	dmsStatus     = "describe-stacks rds-outbox-demo-dev-dms Stacks[0].StackStatus"
	dmsOutput     = "describe-stacks rds-outbox-demo-dev-dms Stacks[0].Outputs[].[OutputKey,OutputValue]"
	taskState     = "describe-replication-tasks ReplicationTasks[0].[Status,ReplicationTaskStats.FreshStartDate,StopReason,LastFailureMessage]"
	taskSince     = "describe-replication-tasks ReplicationTasks[0].ReplicationTaskStats.StartDate"
	invokeMigrate = "lambda invoke the-function"
	noStack       = "An error occurred (ValidationError) when calling the DescribeStacks operation: Stack with id x does not exist"
	// No walrelay until a test says so.
	walrelayStatus = "describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].StackStatus"
)
