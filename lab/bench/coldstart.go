package bench

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/lambdarun"
)

// coldStart measures what the first request to a new environment waits for, beside a Lambda function that does nothing.
func coldStart(ctx context.Context, e *environment) ([]Row, error) {
	total := Row{What: "exec to the first answer, with secret and database", Unit: "ms", LimitName: "an empty Go Lambda"}
	if runtime.GOOS != "linux" {
		total.Missing = "what runs on Lambda runs on Linux only"
		return []Row{total}, nil
	}
	functions, size, err := e.buildFunctions(ctx)
	if err != nil {
		return nil, err
	}
	ours, empty, err := e.functions(ctx, functions)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	memory := Row{What: "anonymous memory then", Unit: "MB", LimitName: total.LimitName}
	starts := max(e.size(20), 5)
	values, err := e.alternate(ctx,
		func(ctx context.Context) (float64, error) {
			return ours.starts(ctx, starts, &memory.Ours)
		},
		func(ctx context.Context) (float64, error) {
			return empty.starts(ctx, starts, &memory.Limit)
		})
	if err != nil {
		return nil, err
	}
	total.Ours, total.Limit = values[0], values[1]
	pieces, err := ours.pieces(ctx, e.Rounds*starts)
	if err != nil {
		return nil, err
	}
	tls := Row{What: "exec to the Runtime API's first call, with TLS to RDS", Unit: "ms"}
	for range e.Rounds * starts {
		s, err := ours.withTLS().start(ctx, "", nil)
		if err != nil {
			return nil, err
		}
		tls.Ours = append(tls.Ours, s.since(s.asked))
	}
	zipped := Row{What: "zip of it", Unit: "MB", Ours: Values{size}}
	return append([]Row{total.atMost(16), memory.atMost(16), zipped.atMost(6).bounded(6)}, append(pieces, tls)...), nil
}

// buildFunctions builds them as they are deployed, but for this machine: their folder, and the size of the API's zip in MB.
func (e *environment) buildFunctions(ctx context.Context) (dir string, size float64, err error) {
	dir = filepath.Join(e.Dir, "functions")
	command := exec.CommandContext(ctx, "go", "run", "./infra/lambdazip", "-out", dir, "createCar=handlers/carapi/lambda",
		"empty=lab/bench/testdata/emptylambda")
	command.Dir = e.Root
	command.Env = append(command.Environ(), "LAMBDA_GOARCH="+runtime.GOARCH)
	if out, err := command.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("building the functions: %w: %s", err, out)
	}
	for _, name := range []string{"createCar", "empty"} {
		if err := unzip(filepath.Join(dir, name+".zip"), filepath.Join(dir, name)); err != nil {
			return "", 0, err
		}
	}
	info, err := os.Stat(filepath.Join(dir, "createCar.zip"))
	if err != nil {
		return "", 0, err
	}
	return dir, float64(info.Size()) / 1e6, nil
}

func unzip(path, program string) (err error) {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", path, err)
	}
	defer archive.Close()
	bootstrap, err := archive.Open("bootstrap")
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", path, err)
	}
	defer bootstrap.Close()
	file, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, bootstrap)
	return errors.Join(err, file.Close())
}

// function is a program that is started again and again, and what it gets.
type function struct {
	program  string
	env      []string
	event    []byte
	secrets  *secrets // nil: it asks for none
	database string   // host:port; empty: as env has it
}

// functions are the API, with a database and a secret of its own, and the one that does nothing.
func (e *environment) functions(ctx context.Context, dir string) (ours, empty *function, err error) {
	database, err := e.newDatabase(ctx)
	if err != nil {
		return nil, nil, err
	}
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, nil, err
	}
	event, err := os.ReadFile(filepath.Join(e.Root, "handlers", "carapi", "lambda", "testdata", "post-cars.json"))
	if err != nil {
		return nil, nil, err
	}
	cloud, err := e.newSecrets(database)
	if err != nil {
		return nil, nil, err
	}
	return &function{
		program: filepath.Join(dir, "createCar"), event: event, secrets: cloud, database: net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))),
		env: []string{
			"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + cloud.url, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
			"AWS_SESSION_TOKEN=local", "DB_NAME=" + config.Database,
			"DB_USER=" + config.User, "DB_SECRET_ARN=" + secretName, "DB_SSL=false", "IDEMPOTENCY_HOURS=24",
		},
	}, &function{program: filepath.Join(dir, "empty"), event: []byte("{}")}, nil
}

// withTLS is the API with an RDS instance's name as its database, and a request that asks no database.
func (f *function) withTLS() *function {
	tls := *f
	tls.env = append(slices.Clone(f.env), "DB_SSL=true", "DB_HOST=bench.c0ffee000000.us-east-1.rds.amazonaws.com") // the last one counts
	tls.event = []byte(`{"httpMethod":"GET","path":"/openapi.json"}`)
	return &tls
}

func (f *function) close() { f.secrets.close() }

// starts returns the median of so many starts in ms, and adds that of the memory, in MB, to memory.
func (f *function) starts(ctx context.Context, n int, memory *Values) (float64, error) {
	var took, used Values
	for range n {
		s, err := f.start(ctx, f.database, nil)
		if err != nil {
			return 0, err
		}
		took, used = append(took, s.since(s.answered)), append(used, float64(s.anonymous)/1e6)
	}
	*memory = append(*memory, used.Median())
	return took.Median(), nil
}

// start is when the steps of one start happened. The zero time: not at all, or not looked at.
type start struct {
	exec, asked, secret, connected, ready, answered time.Time

	anonymous int64 // bytes
}

func (s start) since(t time.Time) float64 { return milliseconds(t.Sub(s.exec)) }

// start runs the program until its first answer. In front, if there is one, notes when the database is spoken to.
func (f *function) start(ctx context.Context, database string, inFront *front) (s start, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, f.program)
	command.Env = slices.Clone(f.env)
	if host, port, err := net.SplitHostPort(database); err == nil {
		command.Env = append(command.Env, "DB_HOST="+host, "DB_PORT="+port)
	}
	var output strings.Builder
	command.Stdout, command.Stderr = &output, &output
	running, err := lambdarun.Start(command)
	if err != nil {
		return s, err
	}
	defer func() {
		running.Close()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, &output)
		}
	}()
	answer, err := running.Invoke(ctx, f.event, time.Minute)
	if err != nil {
		return s, err
	}
	if answer.Failed || f.secrets != nil && !strings.Contains(string(answer.Body), `"statusCode":20`) {
		return s, fmt.Errorf("the function answered %s", answer.Body)
	}
	s.exec, s.asked, s.answered = running.Started, answer.Asked, answer.Answered
	s.anonymous, err = anonymousMemory(running.PID())
	if f.secrets != nil {
		s.secret = time.Unix(0, f.secrets.told.Load())
	}
	if inFront != nil {
		s.connected, s.ready = inFront.times()
	}
	return s, err
}

// anonymousMemory is what of a running process's memory is its own, and not pages of its program file: bytes.
func anonymousMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the function's memory: %w", err)
	}
	return readAnonymous(string(text))
}

func readAnonymous(rollup string) (bytes int64, err error) {
	for line := range strings.Lines(rollup) {
		if rest, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("smaps_rollup has no line Anonymous")
}
