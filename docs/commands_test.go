package docs_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// runBy names the target of .ci/run that runs another one, on a copy of the tree.
var runBy = map[string]string{"generate": "yours"}

// Every local command of the docs stands in .ci/run, by its make target, or runs here, beside a `make dev` on a copy of the tree, in the
// order of its page.
func TestLocalCommands(t *testing.T) {
	t.Parallel()
	var d *dev // one for all pages; a page must not need what another one did
	ci := ciTargets(t)
	for _, p := range pages(t) {
		if p.path == followed {
			continue
		}
		var fill *strings.Replacer
		for _, f := range p.fences {
			if f.file() != "" || len(f.info) != 1 || f.language() != "sh" && f.language() != "sql" {
				continue
			}
			commands := f.commands()
			if f.language() == "sql" {
				commands = []command{{f.line, strings.Join(f.lines, "\n")}}
			}
			for _, c := range commands {
				if f.language() == "sh" && coveredByCI(c.text, ci) {
					continue
				}
				if d == nil {
					d = startDev(t)
				}
				if fill == nil {
					fill = d.anEvent(t)
				}
				began := time.Now()
				if f.language() == "sql" {
					require.NoError(t, d.query(t, fill.Replace(c.text)), p.problem(c.line, "%s", c.text))
				} else {
					require.NoError(t, d.run(t, fill.Replace(c.text)), p.problem(c.line, "%s", c.text))
				}
				t.Logf("%s:%d: %s: %s", p.path, c.line, time.Since(began).Round(time.Millisecond), strings.Split(c.text, "\n")[0])
			}
		}
	}
	require.NotNil(t, d, "no command was found")
}

// ciTargets are the targets that .ci/run makes.
func ciTargets(t *testing.T) (targets []string) {
	t.Helper()
	for line := range strings.Lines(read(t, ".ci/run")) {
		if line = uncommented(line); !strings.HasPrefix(line, "step ") {
			targets = append(targets, makeTargets(line)...)
		}
	}
	require.Subset(t, targets, []string{"test", "lint", "rehearse", "chaos"})
	return targets
}

func coveredByCI(command string, ci []string) bool {
	targets := makeTargets(uncommented(command))
	for _, target := range targets {
		if !slices.Contains(ci, target) && !slices.Contains(ci, runBy[target]) {
			return false
		}
	}
	return len(targets) > 0
}

var (
	statedExit = regexp.MustCompile(`#.*\bexit code (\d+)`)
	typed      = regexp.MustCompile(`#\s*([A-Z]+ .*;)`)
)

// run runs a command as a reader would. It fails with another exit code than 0, or than the one that the command's comment states.
func (d *dev) run(t *testing.T, command string) error {
	t.Helper()
	targets := makeTargets(uncommented(command))
	if slices.Equal(targets, []string{"dev"}) {
		if uncommented(command) == "make dev" {
			return nil // it runs
		}
		return errors.New("a `make dev` of another kind is not started here: make the fence not-run, or teach this test")
	}
	expected := 0
	if stated := statedExit.FindStringSubmatch(command); stated != nil {
		expected, _ = strconv.Atoi(stated[1])
	}
	exit, out, err := d.once(t, command, targets)
	// A relay that was started by the command before needs a moment, as between two commands of a person.
	again := expected == 0 && strings.HasPrefix(command, "bin/outboxctl ")
	for patience := time.Now().Add(labtest.Patience); again && err == nil && exit == 1 && time.Now().Before(patience); {
		exit, out, err = d.once(t, command, targets)
	}
	if err == nil && exit != expected {
		err = fmt.Errorf("exit code %d, not %d:\n%s", exit, expected, out)
	}
	return err
}

// once runs it once, with what the reader is told to type into it as its input.
func (d *dev) once(t *testing.T, command string, targets []string) (exit int, printed string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.Dir, cmd.Env = d.dir, d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	input := ""
	if slices.Contains(targets, "psql") {
		if statements := typed.FindStringSubmatch(command); statements != nil {
			input = statements[1] + "\n"
		}
	}
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return 0, "", fmt.Errorf("still runs after a minute:\n%s", out)
	case cmd.ProcessState == nil:
		return 0, "", err
	case input != "" && strings.Contains(string(out), "ERROR:"):
		return 0, "", fmt.Errorf("the console says:\n%s", out)
	}
	return cmd.ProcessState.ExitCode(), string(out), nil
}

// query sends a fence of SQL as it stands, as a console would.
func (d *dev) query(t *testing.T, sql string) error {
	t.Helper()
	conn := d.connect(t)
	_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	return errors.Join(err, conn.Close(t.Context()))
}
