//go:build browser

package browser

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// dev is a running `lab dev` in a folder of its own.
type dev struct {
	dir, api, view string
	began          time.Time
	carsBefore     int // created by earlier runs, which the view does not count
	process        *os.Process
	output         string // the file that it prints into
	life           *os.File
	ended          chan struct{}
}

// untilWeEnd becomes `lab dev`. Before that it starts a process that reads descriptor 3. The end of
// that file means that the test has ended, even if it was killed, and the process then sends
// Ctrl-C.
const untilWeEnd = `( read -r line <&3; kill -INT $$ ) >/dev/null 2>&1 &
exec "$0" dev 3<&-`

func newFolder(t *testing.T) string {
	t.Helper()
	need(t)
	modules, err := filepath.Abs(filepath.Join(root, "node_modules"))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	return dir
}

// start runs `lab dev` until the test ends or stops it. Port 0 means any port.
func start(t *testing.T, dir string, port int) *dev {
	t.Helper()
	labtest.Program(t, "walrelay/cmd/walrelay") // which lab finds beside it
	lab := labtest.Program(t, "lab")
	d := &dev{dir: dir, began: time.Now(), output: filepath.Join(t.TempDir(), "dev.out"), ended: make(chan struct{})}
	out, err := os.Create(d.output)
	require.NoError(t, err)
	defer out.Close()
	watched, life, err := os.Pipe()
	require.NoError(t, err)
	d.life = life
	cmd := exec.Command("/bin/sh", "-c", untilWeEnd, lab)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = dir, out, out, []*os.File{watched}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !strings.HasPrefix(name, "AWS_") && name != "DATABASE_URL" && name != "FRESH" && name != "BROWSER" {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("PORT=%d", port))
	require.NoError(t, cmd.Start())
	require.NoError(t, watched.Close())
	d.process = cmd.Process
	go func() {
		_ = cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lab dev ended with:\n%s", d.tail(t))
		}
		d.stop(t)
	})
	api, view := regexp.MustCompile(`The path is up: ① (http://\S+)`), regexp.MustCompile(`The live view: (http://\S+)`)
	labtest.Eventually(t, "the path and its view to be up", func() bool {
		select {
		case <-d.ended:
			require.Fail(t, "lab dev has ended", d.tail(t))
		default:
		}
		printed := d.printed(t)
		for pattern, address := range map[*regexp.Regexp]*string{api: &d.api, view: &d.view} {
			if found := pattern.FindSubmatch(printed); found != nil {
				*address = strings.TrimSuffix(string(found[1]), "/")
			}
		}
		return d.api != "" && d.view != ""
	})
	d.carsBefore, _ = d.truth(t)
	return d
}

// stop ends it as Ctrl-C does.
func (d *dev) stop(t *testing.T) {
	t.Helper()
	_ = d.life.Close()
	select {
	case <-d.ended:
	case <-time.After(labtest.Patience):
		_ = d.process.Kill()
		<-d.ended
		t.Error("lab dev did not end")
	}
}

// kill is kill -9. PostgreSQL notices and ends a moment later. The next start waits for that.
func (d *dev) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, d.process.Signal(syscall.SIGKILL))
	<-d.ended
	_ = d.life.Close()
}

func (d *dev) printed(t *testing.T) []byte {
	t.Helper()
	content, err := os.ReadFile(d.output)
	require.NoError(t, err)
	return content
}

func (d *dev) tail(t *testing.T) []byte {
	t.Helper()
	content := d.printed(t)
	return content[max(0, len(content)-1500):]
}

// meta is what the view says about itself, as far as the tests ask.
type meta struct {
	MaxLoad  int
	Switches []struct {
		Name, Label, State, Text, AWS string
		Hop                           int
		Once                          bool
	}
	Tour []struct {
		N             int
		Title, Expect string
		Steps         []string
	}
}

// state is one frame of /live, as far as the tests ask.
type state struct {
	Stations []struct {
		Hop, InFlight, Backlog, Restarts, Total int
		Rate                                    float64
		Faults                                  []string
	}
	Totals struct {
		Cars, Counted, Committed, OnBus, OnTheWay, Lost, Duplicates, Suppressed, Parked, OutOfOrder int
	}
	Switches []struct {
		Name, Error string
		On, Busy    bool
		Struck      int
	}
	FailureQueue int
	Load         int
	Tour         struct{ Running, Step int }
	Events       []struct{ ID, AggregateID, Title string }
}

func (d *dev) meta(t *testing.T) (m meta) {
	t.Helper()
	response, err := http.Get(d.view + "/meta")
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.NoError(t, json.NewDecoder(response.Body).Decode(&m))
	return m
}

// frames calls see with the time and data of each frame of the view, until see returns false.
func (d *dev) frames(t *testing.T, see func(time.Time, []byte) (more bool)) {
	t.Helper()
	response, err := http.Get(d.view + "/live")
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	kind := ""
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event:"); ok {
			kind = strings.TrimSpace(name)
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok && kind == "state" && !see(time.Now(), []byte(data)) {
			return
		}
	}
	require.NoError(t, lines.Err())
	require.Fail(t, "the stream of frames has ended")
}

func (d *dev) state(t *testing.T) (s state) {
	t.Helper()
	d.frames(t, func(_ time.Time, data []byte) bool {
		require.NoError(t, json.Unmarshal(data, &s))
		return false
	})
	return s
}

func (s state) struck(name string) int {
	for _, one := range s.Switches {
		if one.Name == name {
			return one.Struck
		}
	}
	return -1
}

// post creates a car at the API itself, and returns its id.
func (d *dev) post(t *testing.T, body string) string {
	t.Helper()
	response, err := http.Post(d.api+"/cars", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, response.StatusCode, "%s", answer)
	var made struct{ Car struct{ ID string } }
	require.NoError(t, json.Unmarshal(answer, &made))
	return made.Car.ID
}

// connect connects to its database.
func (d *dev) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	env, err := os.ReadFile(filepath.Join(d.dir, ".data", "outboxctl.env"))
	require.NoError(t, err)
	address := regexp.MustCompile(`(?m)^DATABASE_URL=(.*)$`).FindSubmatch(env)
	require.NotNil(t, address)
	conn, err := pgx.Connect(t.Context(), strings.Trim(string(address[1]), `'"`))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// truth reads from the tables what the promise line must say. It returns the cars created since the
// start, and how many of them the subscriber has counted. The second number is right only after the
// subscriber has counted all earlier cars.
func (d *dev) truth(t *testing.T) (cars, counted int) {
	t.Helper()
	conn := d.connect(t)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM outbox WHERE event_type = '"+domain.Created+"'), "+domain.Counted).
		Scan(&cars, &counted))
	return cars - d.carsBefore, counted - d.carsBefore
}
