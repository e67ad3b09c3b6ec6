//go:build yours

package docs_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNew makes the copy of `make new`, and requires that it builds, passes quick tests and packages, and that the old name is gone.
func TestNew(t *testing.T) {
	checkout, err := filepath.Abs(root)
	require.NoError(t, err)
	const name = "rds-outbox-demo"
	if !strings.Contains(read(t, "scripts/new.sh"), "\nfrom="+name+"\n") {
		t.Skip("this tree is a copy, and a copy is not copied again")
	}
	dir := filepath.Join(t.TempDir(), "copy")
	run := func(dir, command string) (string, error) {
		defer func(began time.Time) { t.Logf("%s: %s", time.Since(began).Round(time.Millisecond), command) }(time.Now())
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
		cmd.Dir, cmd.Env = dir, environment()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		output, err := cmd.CombinedOutput()
		return string(output), err
	}
	// A module path with the old name in it shows that the two names do not mix.
	const module, service = "example.com/acme/rds-outbox-demo-orders", "acme-orders"
	const command = "make -s new MODULE=" + module + " SERVICE="
	for wrong, why := range map[string]string{
		command + "Orders":                         "SERVICE 'Orders': use up to 15 ",
		command + "sixteen-is-a-lot":               "SERVICE 'sixteen-is-a-lot': use up to 15 ",
		command + "a--b":                           "SERVICE 'a--b': use up to 15 ",
		command + "orders DIR=docs":                "docs is there already: nothing was changed",
		command + "orders DIR=docs/orders":         "docs/orders is inside this tree",
		"make -s new SERVICE=orders":               "MODULE= is missing",
		"make -s new MODULE=orders SERVICE=orders": "MODULE 'orders': use a Go module path",
	} {
		output, err := run(checkout, wrong)
		require.Error(t, err, wrong)
		require.Contains(t, output, "new: "+why, wrong)
	}
	output, err := run(checkout, command+service+" DIR="+dir)
	require.NoError(t, err, output)
	require.Equal(t, "new: "+dir+" is service "+service+" in module "+module+"\n", output)

	keeps := []string{"CHANGELOG.md", "LICENSE", "scripts/new.sh"}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		require.NotContains(t, notOurs, entry.Name())
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		own, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		if !slices.Contains(keeps, own) {
			require.NotContains(t, strings.ReplaceAll(string(content), module, ""), name, own)
		}
		return nil
	}))

	require.NoError(t, os.Symlink(filepath.Join(checkout, "node_modules"), filepath.Join(dir, "node_modules")))
	for _, command := range []string{
		`test -z "$(gofmt -l .)" && go build ./... && go vet ./...`,
		`go build -o bin/lab ./lab && bin/lab with-postgres -throwaway -- go test -count=1 ./internal/layout ./internal/emf ./contracts ./outbox`,
		// The templates under the new names, and the scripts that ask for their stacks.
		`go test -count=1 -run '^(TestFunctions|TestFunctionsAreBuiltForARM64|TestDeploy.*)$' ./infra ./scripts`,
	} {
		output, err := run(dir, command)
		require.NoError(t, err, "%s\n%s", command, output)
	}
}
