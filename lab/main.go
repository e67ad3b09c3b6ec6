// Command lab runs the whole path on this machine. The Makefile is its front: `make dev`, `make demo`, `make psql` ...
//
// Environment: PORT, FRESH, IN_ORDER, OPEN, CARS, JSON, SEED, ROUNDS, SABOTAGE, HOP, QUICK, CHECK, DATABASE_URL, and for services that are not the local listener
// AWS_ENDPOINT_URL_KINESIS, AWS_ENDPOINT_URL_EVENTBRIDGE, AWS_ENDPOINT_URL_SQS, STREAM_NAME, EVENT_BUS_NAME, FAILURE_QUEUE_URL,
// AWS_REGION and credentials; for outboxctl's sake AWS_ENDPOINT_URL_CLOUDWATCH_LOGS and BUS_LOG_GROUP. Without an endpoint no AWS
// service is reached. Exit code 0, 1 on failure, 2 on wrong use.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"rds-outbox-demo/lab/demo"
	"rds-outbox-demo/lab/dev"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/postgres"
)

const usage = `usage: lab dev | demo | chaos | bench | psql | relay stop|start | with-postgres [-throwaway [-version N]] -- command ...`

// dataDir is kept between runs and ignored by git.
const dataDir = ".data"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:])
	var command commandError
	var wrong usageError
	switch {
	case err == nil:
	case errors.Is(err, errQuiet):
		os.Exit(1)
	case errors.As(err, &command):
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(int(command))
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "lab:", oneLine(err))
		os.Exit(1)
	}
}

// oneLine returns err's text without line breaks. An error of pgx has a line for each address that it tried.
func oneLine(err error) string {
	return strings.NewReplacer(":\n\t", ": ", "\n\t", "; ", "\n", "; ").Replace(err.Error())
}

// commandError is the exit code of the command that with-postgres ran.
type commandError int

func (e commandError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

type usageError string

func (e usageError) Error() string { return string(e) }

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError(usage)
	}
	switch command, rest := args[0], args[1:]; {
	case command == "dev" && len(rest) == 0:
		return runDev(ctx)
	case command == "demo" && len(rest) == 0:
		return runDemo(ctx)
	case command == "chaos" && len(rest) == 0:
		return runChaos(ctx)
	case command == "bench" && len(rest) == 0:
		return runBench(ctx)
	case command == "part" && len(rest) == 1:
		return local.RunMember(ctx, rest[0], os.Getenv(local.MemberEnv))
	case command == "psql" && len(rest) == 0:
		return runPsql(ctx)
	case command == "relay" && len(rest) == 1:
		return dev.Control(ctx, dataDir, rest[0])
	case command == "with-postgres" && len(rest) > 1 && rest[0] == "--":
		return withLocal(ctx, rest[1:])
	case command == "with-postgres" && len(rest) > 2 && rest[0] == "-throwaway" && rest[1] == "--":
		return withThrowAway(ctx, postgres.Version, rest[2:])
	case command == "with-postgres" && len(rest) > 4 && rest[0] == "-throwaway" && rest[1] == "-version" && rest[3] == "--":
		return withThrowAway(ctx, rest[2], rest[4:])
	default:
		return usageError(usage)
	}
}

func runDev(ctx context.Context) error {
	port, err1 := intEnv("PORT", 3000, 0, 65535)
	fresh, err2 := boolEnv("FRESH")
	inOrder, err3 := boolEnv("IN_ORDER")
	config, err4 := pathConfig()
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return err
	}
	if fresh && os.Getenv("DATABASE_URL") != "" {
		return usageError("FRESH=1 empties the local data folder; with DATABASE_URL the data is on your server: empty it yourself, or leave FRESH out")
	}
	// Half of Go's default. After a load this process has 62 MB instead of 75 MB, 24 MB of them the program itself.
	debug.SetGCPercent(50)
	config.Dir, config.Durable, config.InOrder = dataDir, true, inOrder
	config.Listen = fmt.Sprintf("127.0.0.1:%d", port)
	viewPort := 0
	if port != 0 && port < 65535 {
		viewPort = port + 1
	}
	return dev.Run(ctx, dev.Config{
		Path: config, Fresh: fresh, Out: os.Stdout, View: fmt.Sprintf("127.0.0.1:%d", viewPort), Browser: browser(),
	})
}

// browser returns what opens a page for the user, or nil where nobody could see it or nobody wants
// it.
func browser() func(url string) {
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	hasScreen := os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "" || runtime.GOOS == "darwin" && os.Getenv("SSH_CONNECTION") == ""
	if !hasScreen || os.Getenv("OPEN") == "0" || os.Getenv("CI") != "" {
		return nil
	}
	return func(url string) { dev.Open(program, url) }
}

func runDemo(ctx context.Context) error {
	cars, err1 := intEnv("CARS", 100, 1, 1_000_000)
	asJSON, err2 := boolEnv("JSON")
	config, err3 := pathConfig()
	if err := cmp.Or(err1, err2, err3); err != nil {
		return err
	}
	config.Listen = "127.0.0.1:0"
	return demo.Run(ctx, demo.Config{Path: config, Cars: cars, JSON: asJSON, Out: os.Stdout, Progress: os.Stderr})
}

// pathConfig reads what is common to dev and demo.
func pathConfig() (local.Config, error) {
	self, err := os.Executable()
	if err != nil {
		return local.Config{}, err
	}
	return local.Config{
		Root:        ".",
		Relay:       filepath.Join(filepath.Dir(self), "walrelay"),
		Env:         environment(),
		Settings:    local.ForPeople(),
		DatabaseURL: os.Getenv("DATABASE_URL"),
		AWS: local.Services{
			Region:          os.Getenv("AWS_REGION"),
			KinesisURL:      os.Getenv("AWS_ENDPOINT_URL_KINESIS"),
			Stream:          os.Getenv("STREAM_NAME"),
			EventBridgeURL:  os.Getenv("AWS_ENDPOINT_URL_EVENTBRIDGE"),
			Bus:             os.Getenv("EVENT_BUS_NAME"),
			SQSURL:          os.Getenv("AWS_ENDPOINT_URL_SQS"),
			FailureQueueURL: os.Getenv("FAILURE_QUEUE_URL"),
			LogsURL:         os.Getenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
			LogGroup:        os.Getenv("BUS_LOG_GROUP"),
			AccessKeyID:     os.Getenv("AWS_ACCESS_KEY_ID"),
			SecretKey:       os.Getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
		},
	}, nil
}

// withLocal runs a command with DATABASE_URL set to the local server. That is the server of a
// running `make dev`, or else the one of its data folder, which is started for as long as the
// command runs.
func withLocal(ctx context.Context, command []string) error {
	dir := filepath.Join(dataDir, "postgres")
	if databaseURL, err := postgres.FindRunning(dir); err == nil {
		return runCommand(ctx, command, "DATABASE_URL="+databaseURL)
	}
	binaries, err := postgres.FindBinaries(".")
	if err != nil {
		return err
	}
	return withServer(ctx, postgres.Config{Dir: dir, Binaries: binaries, Durable: true}, command, "DATABASE_URL")
}

// withThrowAway runs a command with TEST_DATABASE_URL set to a new server, which is removed
// afterwards with its data. It also sets TEST_POSTGRES to the binaries, for tests that start a
// server of their own. The command's temporary files are in memory where that is possible, but not
// those of go build, which are larger.
func withThrowAway(ctx context.Context, version string, command []string) (err error) {
	binaries, err := postgres.FindVersion(".", version)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(memoryFolder(), "outbox-postgres-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	more := []string{"TEST_POSTGRES=" + binaries}
	if memoryFolder() != "" {
		files := filepath.Join(dir, "tmp")
		if err := errors.Join(os.Mkdir(files, 0o755), os.Chmod(dir, 0o755)); err != nil { //nolint:gosec // as root a test's server runs as another user
			return err
		}
		more = append(more, "TMPDIR="+files, "GOTMPDIR="+os.TempDir())
	}
	return withServer(ctx, postgres.Config{Dir: filepath.Join(dir, "postgres"), Binaries: binaries}, command, "TEST_DATABASE_URL", more...)
}

func withServer(ctx context.Context, config postgres.Config, command []string, variable string, more ...string) (err error) {
	server, err := postgres.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	return runCommand(ctx, command, append(more, variable+"="+server.URL())...)
}

// runCommand runs a command in the foreground. Ctrl-C reaches the command from the terminal, as it
// reaches us, and we wait for the command to end.
func runCommand(ctx context.Context, command []string, env ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = commandError(max(1, exit.ExitCode()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}

// environment returns the variables that the relay may see, which are those that lead to a
// database. The path adds those of AWS.
func environment() []string {
	env := []string{"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"}
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "HOME=") {
			env = append(env, entry)
		}
	}
	return env
}

func intEnv(name string, fallback, low, high int) (int, error) {
	value := os.Getenv(name)
	if value == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, usageError(fmt.Sprintf("%s is %q: give a whole number from %d to %d", name, value, low, high))
	}
	return n, nil
}

func boolEnv(name string) (bool, error) {
	switch value := os.Getenv(name); value {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, usageError(fmt.Sprintf("%s is %q: give 1, or leave it out", name, value))
	}
}
