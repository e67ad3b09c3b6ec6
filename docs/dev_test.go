package docs_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// dev is a `make dev` on a copy of the tree.
type dev struct {
	dir, url string
	env      []string
	output   string // the file that it prints into
}

// untilWeEnd becomes `make dev`. Before that it starts a process that reads descriptor 3. The end
// of the file means that the test has ended, even if it was killed, and the process then sends
// Ctrl-C to all of `make dev`.
const untilWeEnd = `( read -r line <&3; kill -INT -$$ ) >/dev/null 2>&1 &
exec make dev 3<&-`

func startDev(t *testing.T) *dev {
	t.Helper()
	dir := copyTree(t)
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".curlrc"), []byte("fail-with-body\nsilent\nshow-error\n"), 0o600))
	d := &dev{dir: dir, env: environment("PORT=0", "CURL_HOME="+home), output: filepath.Join(home, "dev.out")}
	out, err := os.Create(d.output)
	require.NoError(t, err)
	defer out.Close()
	watched, life, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command("/bin/sh", "-c", untilWeEnd)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = d.dir, d.env, out, out
	cmd.ExtraFiles = []*os.File{watched}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	require.NoError(t, watched.Close())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = life.Close()
		select {
		case <-ended:
		case <-time.After(labtest.Patience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
			t.Error("`make dev` did not end")
		}
		if t.Failed() {
			t.Logf("make dev printed:\n%s", d.printed(t))
		}
	})
	address := regexp.MustCompile(`The path is up: ① (http://\S+)`)
	labtest.Eventually(t, "`make dev` to be up", func() bool {
		select {
		case <-ended:
			require.Fail(t, "`make dev` has ended", d.printed(t))
		default:
		}
		found := address.FindStringSubmatch(d.printed(t))
		if found != nil {
			d.url = found[1]
		}
		return found != nil
	})
	return d
}

func (d *dev) printed(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(d.output)
	require.NoError(t, err)
	return string(content)
}

// anEvent makes a car, waits for its event, and fills in what the docs call <car-id>, <event-id>, <trace-id>, and the API's address.
func (d *dev) anEvent(t *testing.T) *strings.Replacer {
	t.Helper()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	request, err := http.NewRequest(http.MethodPost, d.url+"/cars", strings.NewReader(domain.Sample(0)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusCreated, response.StatusCode, "%s", body)
	var made struct{ Car struct{ ID string } }
	require.NoError(t, json.Unmarshal(body, &made))
	conn := d.connect(t)
	var event string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT id::text FROM outbox WHERE aggregate_id = $1", made.Car.ID).Scan(&event))
	require.NoError(t, conn.Close(t.Context()))
	labtest.Eventually(t, "the line of event "+event, func() bool { return strings.Contains(d.printed(t), event) })
	host := strings.TrimPrefix(d.url, "http://")
	return strings.NewReplacer("127.0.0.1:3000", host, "localhost:3000", host,
		"<car-id>", made.Car.ID, "<event-id>", event, "<trace-id>", trace)
}

// connect connects to its database.
func (d *dev) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	env, err := os.ReadFile(filepath.Join(d.dir, ".data", "outboxctl.env"))
	require.NoError(t, err)
	url := regexp.MustCompile(`(?m)^DATABASE_URL=(.*)$`).FindSubmatch(env)
	require.NotNil(t, url)
	conn, err := pgx.Connect(t.Context(), string(url[1]))
	require.NoError(t, err)
	return conn
}

// copyTree copies what belongs to the repository, and the built programs, with their times, so that make finds them current.
// node_modules is a folder of links, so the packages stay, whatever a command does to it.
func copyTree(t *testing.T) string {
	t.Helper()
	for _, needed := range []string{"node_modules/.runtime", "bin/lab", "bin/walrelay", "bin/migrate", "bin/outboxctl"} {
		if _, err := os.Stat(filepath.Join(root, needed)); err != nil {
			absent := needed + " is absent: run `make build`"
			labtest.Missing(t, absent)
		}
	}
	dir := t.TempDir()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another test's, and gone
		} else if err != nil {
			return err
		}
		own, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && own != "bin" && slices.Contains(notOurs, entry.Name()), own == "bin/chaos":
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(dir, own), 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, own)
		if err := os.WriteFile(target, content, info.Mode().Perm()); err != nil {
			return err
		}
		return os.Chtimes(target, info.ModTime(), info.ModTime())
	}))
	modules, err := filepath.Abs(filepath.Join(root, "node_modules"))
	require.NoError(t, err)
	entries, err := os.ReadDir(modules)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "node_modules"), 0o755))
	for _, entry := range entries {
		link := filepath.Join(dir, "node_modules", entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		require.NoError(t, os.Symlink(filepath.Join(modules, entry.Name()), link))
	}
	for _, installed := range []string{".runtime", ".dev"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "node_modules", installed), nil, 0o600))
	}
	return dir
}
