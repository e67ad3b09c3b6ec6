package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Root returns the folder of the module.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		require.NotEqual(t, filepath.Dir(dir), dir, "no go.mod above the test")
		dir = filepath.Dir(dir)
	}
}

var (
	building sync.Mutex
	built    = map[string]bool{} // by this process
)

// Program builds a program of the module, such as walrelay/cmd/walrelay, and returns its path. The
// programs with the same tags are in one folder, as in bin/, so that one finds the other beside it.
// All test processes share the folder. Otherwise each of them would link the same programs again.
func Program(t testing.TB, source string, tags ...string) string {
	t.Helper()
	root := Root(t)
	dir := filepath.Join(root, ".cache", strings.Join(append([]string{"programs"}, tags...), "-"))
	program := filepath.Join(dir, filepath.Base(source))
	building.Lock()
	defer building.Unlock()
	if !built[program] {
		require.NoError(t, build(root, source, program, tags))
		built[program] = true
	}
	return program
}

// build leaves a program that is up to date as it is. It takes turns with other processes, because
// one could start the program that another is writing.
func build(root, source, program string, tags []string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	turn, err := os.OpenFile(program+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer turn.Close() // ends the turn
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", turn.Name(), err)
	}
	// With the flags of bin/, which are those of what is deployed, so that Go compiles each package once for all of them.
	command := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", program, "./"+source)
	command.Dir, command.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", source, err, out)
	}
	return nil
}
