//go:build yours

// The tag keeps this out of `make test`, because it needs sqlc, which takes minutes to build, and a
// minute for itself. `make yours` runs it.

package docs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// yoursInstead runs in place of commands that take too long. Instead of all of `make test` it runs
// the packages that the page's edits can break.
var yoursInstead = map[string]string{
	"make test": `test -z "$(gofmt -l handlers contracts)" && go vet ./... && bin/lab with-postgres -throwaway -- sh -c '
		go test -count=1 ./contracts ./dbgen ./handlers/carapi ./internal/layout ./migrate ./migrate/cmd/migrate &&
		go test -count=1 -run "TestRoutes|TestEveryContractIsRegistered" ./infra'`,
}

// TestMakeItYours follows docs/make-it-yours.md on a copy of the tree, fence by fence, and looks for the event on the bus.
func TestMakeItYours(t *testing.T) {
	y := &yours{t: t, dir: copyTree(t)}
	for _, tools := range []string{".cache", "contracts/npm/node_modules"} { // sqlc, and the parser of AsyncAPI
		installed, err := filepath.Abs(filepath.Join(root, tools))
		require.NoError(t, err)
		require.NoError(t, os.Symlink(installed, filepath.Join(y.dir, tools)))
	}
	p := parse(followed, read(t, followed))
	for _, f := range p.fences {
		y.at = fmt.Sprintf("%s:%d", p.path, f.line)
		if f.file() != "" { // which who reads the page on a web site does not see
			above := strings.Split(strings.TrimSpace(strings.Join(p.prose[:f.line-1], "\n")), "\n")
			require.Contains(t, above[len(above)-1], "`"+f.file()+"`", "%s: name the file above it", y.at)
		}
		switch text := strings.Join(f.lines, "\n") + "\n"; {
		case f.has("not-run"): // is read, not followed
		case f.language() == "sh":
			for _, c := range f.commands() {
				y.run(uncommented(c.text))
			}
		case f.language() == "":
			y.printed(text)
		case f.language() == "diff":
			y.edit(f.file(), text)
		case f.has("new"):
			y.create(f.file(), text)
		default:
			require.NotEmpty(t, f.file(), y.at)
			_, why := cutFrom(strings.Split(y.read(f.file()), "\n"), f.lines)
			require.Empty(t, why, "%s: excerpt of %s", y.at, f.file())
		}
	}
	y.arrived("DealerOpened", "dealerId", map[string]any{"name": "Nordlicht", "city": "Kiel"})
}

// yours is the copy, and the `make dev` that runs in it.
type yours struct {
	t            *testing.T
	dir          string
	at           string // the fence, for messages
	url, printer string // of `make dev`: its address, and the file that it prints into
}

func (y *yours) read(file string) string {
	content, err := os.ReadFile(filepath.Join(y.dir, file))
	require.NoError(y.t, err, y.at)
	return string(content)
}

func (y *yours) write(file, text string) {
	path := filepath.Join(y.dir, file)
	require.NoError(y.t, os.MkdirAll(filepath.Dir(path), 0o755), y.at)
	require.NoError(y.t, os.WriteFile(path, []byte(text), 0o644), y.at)
}

func (y *yours) create(file, text string) {
	require.NoFileExists(y.t, filepath.Join(y.dir, file), y.at)
	y.write(file, text)
}

// edit replaces, for each part between lines @@, the lines with a space or - by those with a space or +.
func (y *yours) edit(file, diff string) {
	text := "\n" + y.read(file)
	for hunk := range strings.SplitSeq(diff, "@@\n") {
		before, after := "\n", "\n"
		for line := range strings.Lines(hunk) {
			require.Contains(y.t, " -+", line[:1], "%s: %s", y.at, line)
			if line[0] != '+' {
				before += line[1:]
			}
			if line[0] != '-' {
				after += line[1:]
			}
		}
		require.Equal(y.t, 1, strings.Count(text, before), "%s: how often %s has these lines:%s", y.at, file, before)
		text = strings.Replace(text, before, after, 1)
	}
	y.write(file, text[1:])
}

func (y *yours) run(command string) {
	defer func(began time.Time) {
		y.t.Logf("%s: %s: %s", y.at, time.Since(began).Round(time.Millisecond), command)
	}(time.Now())
	if command == "make dev" {
		y.startDev()
		return
	}
	if instead := yoursInstead[command]; instead != "" {
		command = instead
	}
	const address = "http://127.0.0.1:3000"
	asks := strings.Contains(command, address)
	cmd := exec.CommandContext(y.t.Context(), "/bin/sh", "-c", strings.ReplaceAll(command, address, y.url))
	cmd.Dir, cmd.Env = y.dir, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	output, err := cmd.CombinedOutput()
	require.NoError(y.t, err, "%s: %s\n%s", y.at, command, output)
	if asks {
		require.Contains(y.t, string(output), " 201 Created", y.at) // which the page promises
	}
}

func (y *yours) startDev() {
	y.printer = filepath.Join(y.t.TempDir(), "dev.out")
	out, err := os.Create(y.printer)
	require.NoError(y.t, err)
	defer out.Close()
	watched, life, err := os.Pipe()
	require.NoError(y.t, err)
	cmd := exec.Command("/bin/sh", "-c", untilWeEnd)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = y.dir, environment("PORT=0"), out, out, []*os.File{watched}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(y.t, cmd.Start())
	require.NoError(y.t, watched.Close())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	y.t.Cleanup(func() {
		_ = life.Close()
		select {
		case <-ended:
		case <-time.After(labtest.Patience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
			y.t.Error("`make dev` did not end")
		}
		if y.t.Failed() {
			y.t.Logf("make dev printed:\n%s", y.devPrinted())
		}
	})
	labtest.Eventually(y.t, "`make dev` to be up", func() bool {
		select {
		case <-ended:
			require.Fail(y.t, "`make dev` has ended")
		default:
		}
		found := regexp.MustCompile(`The path is up: ① (http://\S+)`).FindStringSubmatch(y.devPrinted())
		if found != nil {
			y.url = found[1]
		}
		return found != nil
	})
	// A reader needs time to go to another terminal, so the relay streams by then. An event that
	// commits earlier comes with the load, and its line has no times.
	labtest.Eventually(y.t, "the relay to stream", func() bool {
		log, _ := os.ReadFile(filepath.Join(y.dir, ".data", "walrelay.log"))
		return bytes.Contains(log, []byte(`"msg":"streaming"`))
	})
}

func (y *yours) devPrinted() string {
	content, err := os.ReadFile(y.printer)
	require.NoError(y.t, err)
	return string(content)
}

// printed waits until `make dev` has printed such lines, with other ids and times.
func (y *yours) printed(text string) {
	require.NotEmpty(y.t, y.url, "%s: make dev does not run", y.at)
	for line := range strings.Lines(text) {
		pattern := regexp.QuoteMeta(strings.TrimSpace(line))
		pattern = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(pattern, `[0-9a-f-]{36}`)
		pattern = regexp.MustCompile(`\d+\\\.\d ms`).ReplaceAllLiteralString(pattern, `\d+\.\d ms`)
		such := regexp.MustCompile(`(?m)^` + pattern + `$`)
		labtest.Eventually(y.t, y.at+": "+line, func() bool { return such.MatchString(y.devPrinted()) })
	}
}

// arrived requires one event of the type in the bus's journal: as its contract says, with these members, the first of its aggregate.
func (y *yours) arrived(eventType, idMember string, members map[string]any) {
	var all []awslocal.BusEvent
	require.NoError(y.t, awslocal.ReadBus(filepath.Join(y.dir, ".data", "aws"), func(e awslocal.BusEvent) error {
		if e.DetailType == eventType {
			all = append(all, e)
		}
		return nil
	}))
	require.Len(y.t, all, 1)
	e := all[0]
	delivered, err := json.Marshal(map[string]any{
		"version": "0", "id": e.ID, "detail-type": e.DetailType, "source": e.Source, "account": awslocal.Account,
		"time": e.Time.UTC().Format(time.RFC3339), "region": awslocal.Region, "resources": append([]string{}, e.Resources...), "detail": e.Detail,
	})
	require.NoError(y.t, err)
	event, err := jsonschema.UnmarshalJSON(bytes.NewReader(delivered))
	require.NoError(y.t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	contract, err := compiler.Compile(filepath.Join(y.dir, "contracts", eventType+".v1.json"))
	require.NoError(y.t, err)
	require.NoError(y.t, contract.Validate(event), "%s", delivered)

	var detail struct {
		AggregateID      string
		AggregateVersion int
		EventData        map[string]any
		Traceparent      string
	}
	require.NoError(y.t, json.Unmarshal(e.Detail, &detail))
	require.Equal(y.t, 1, detail.AggregateVersion)
	require.NotEmpty(y.t, detail.Traceparent)
	require.Equal(y.t, detail.AggregateID, detail.EventData[idMember])
	for name, value := range members {
		require.Equal(y.t, value, detail.EventData[name], name)
	}
}
