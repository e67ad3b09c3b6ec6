package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

// asProgram makes the test binary the program itself, because the program sets its environment.
const asProgram = "OUTBOXCTL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestUse(t *testing.T) {
	t.Parallel()
	t.Run("AnErrorIsOneLine", func(t *testing.T) {
		t.Parallel()
		for want, args := range map[string][]string{
			"outboxctl: which command? outboxctl help lists them\n":                                                                     {},
			"outboxctl: unknown command \"audti\": outboxctl help lists them\n":                                                         {"audti"},
			"outboxctl: replay: flag provided but not defined: -everything; see outboxctl replay -h\n":                                  {"replay", "--everything"},
			"outboxctl: replay: invalid value \"monday\" for flag -to: write a time as 2026-03-01T12:00:00Z; see outboxctl replay -h\n": {"replay", "--to", "monday"},
		} {
			out, errs, code := program(t, nil, args...)
			require.Equal(t, 2, code)
			require.Empty(t, out)
			require.Equal(t, want, errs)
		}
	})
	t.Run("Help", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
			out, errs, code := program(t, nil, args...)
			require.Zero(t, code)
			require.Empty(t, errs)
			require.Contains(t, out, "usage: outboxctl <command>")
			require.Regexp(t, `\n  redrive +send parked events again\n`, out)
		}
		for _, args := range [][]string{{"audit", "-h"}, {"audit", "--help"}, {"audit", "help"}, {"help", "audit"}, {"audit", "--grace", "1s", "-h"}} {
			out, errs, code := program(t, nil, args...)
			require.Zero(t, code)
			require.Empty(t, errs)
			require.Contains(t, out, "usage: outboxctl audit [flags]\n")
			require.Contains(t, out, "-grace")
		}
	})
	t.Run("EachCommand", func(t *testing.T) {
		t.Parallel()
		for _, command := range []string{"where", "audit", "redrive", "replay", "purge", "copy-slot", "doctor"} {
			for _, args := range [][]string{{command, "-h"}, {command, "--help"}, {command, "help"}, {"help", command}} {
				out, errs, code := program(t, nil, args...)
				require.Zero(t, code, args)
				require.Empty(t, errs, args)
				require.Regexp(t, "^usage: outboxctl "+command+` (\S.*)?\[flags\]\n`, out, args)
				require.Contains(t, out, "\n  -json\n", args)
			}
			out, errs, code := program(t, nil, command, "version")
			require.Zero(t, code, command)
			require.Empty(t, errs, command)
			require.Regexp(t, `^outboxctl \S+ go1\.\S+\n$`, out, command)
			out, errs, code = program(t, nil, command, "--bogus")
			require.Equal(t, 2, code, command)
			require.Empty(t, out, command)
			require.Equal(t, "outboxctl: "+command+": flag provided but not defined: -bogus; see outboxctl "+command+" -h\n", errs)
		}
	})
	t.Run("Version", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"version"}, {"--version"}, {"where", "version"}, {"where", "--version"}} {
			out, errs, code := program(t, nil, args...)
			require.Zero(t, code)
			require.Empty(t, errs)
			require.Regexp(t, `^outboxctl \S+ go1\.\S+\n$`, out)
		}
	})
}

func TestSetup(t *testing.T) {
	t.Parallel()
	t.Run("NoneIsSaid", func(t *testing.T) {
		t.Parallel()
		_, errs, code := program(t, nil, "audit")
		require.Equal(t, 2, code)
		require.Contains(t, errs, "which set-up? Start `make dev` here")
	})
	t.Run("FromTheEnvironment", func(t *testing.T) {
		t.Parallel()
		required := []string{"STREAM_NAME=s", "EVENT_BUS_NAME=b", "FAILURE_QUEUE_URL=q", "DATABASE_URL=postgres://x"}
		_, errs, code := program(t, required, "audit")
		require.Equal(t, 2, code)
		require.Contains(t, errs, "BUS_LOG_GROUP is not set")
		required = append(required, "BUS_LOG_GROUP=l")
		for _, days := range []string{"2w", "0", "-1"} {
			_, errs, code = program(t, append(required, "RETENTION_DAYS="+days), "audit")
			require.Equal(t, 2, code)
			require.Contains(t, errs, `RETENTION_DAYS is "`+days+`": set it to a number of days above 0`)
		}
	})
	t.Run("AFileReplacesTheEnvironment", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		_, config := awstest.Start(t, awslocal.Config{
			Streams: []awslocal.Stream{{Name: "outbox", Shards: 1}}, Buses: []string{"bus"}, BusLogs: map[string]string{"log": "bus"}, Queues: []string{"failures"},
		})
		lines := []string{
			"# the set-up of a test", "",
			"DATABASE_URL=" + db.URL,
			"AWS_REGION=" + awslocal.Region, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_ENDPOINT_URL=" + *config.BaseEndpoint,
			"STREAM_NAME=outbox", "EVENT_BUS_NAME=bus", "FAILURE_QUEUE_URL=" + awslocal.QueueURL(*config.BaseEndpoint, "failures"), "BUS_LOG_GROUP=log",
		}
		file := filepath.Join(t.TempDir(), "outboxctl.env")
		write := func(lines ...string) {
			require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
		}
		const nobody = "http://127.0.0.1:1"
		environment := []string{
			"AWS_ENDPOINT_URL_KINESIS=" + nobody, "AWS_ENDPOINT_URL_SQS=" + nobody, "AWS_SESSION_TOKEN=x", "BUS_LOG_GROUP=of-another-deployment", "RETENTION_DAYS=99",
		}

		write(lines...)
		out, errs, code := program(t, environment, "where", "--env-file", file, "018f3b1c-0000-7000-8000-000000000000")
		require.Equal(t, 1, code, errs)
		require.Empty(t, errs)
		require.Contains(t, out, "where: last hop -: nowhere")
		out, errs, code = program(t, environment, "purge", "--dry-run", "--env-file", file)
		require.Equal(t, 2, code, out)
		require.Contains(t, errs, "set RETENTION_DAYS", "neither a default nor the environment's")
		write(append(lines, "RETENTION_DAYS=30")...)
		out, errs, code = program(t, environment, "purge", "--dry-run", "--env-file", file)
		require.Equal(t, 1, code, out)
		require.Contains(t, errs, "outbox_relay", "the slot's name when none is given")

		write(lines[:len(lines)-1]...)
		_, errs, code = program(t, environment, "audit", "--env-file", file)
		require.Equal(t, 2, code)
		require.Contains(t, errs, "BUS_LOG_GROUP is not set")

		write(append(lines, "nonsense")...)
		_, errs, code = program(t, environment, "audit", "--env-file", file)
		require.Equal(t, 2, code)
		require.Contains(t, errs, "not a NAME=value line")
	})
}

// program runs outboxctl as a process of its own, in an empty folder.
func program(t *testing.T, env []string, args ...string) (out, errs string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{
		asProgram + "=1", "HOME=" + cmd.Dir, "AWS_EC2_METADATA_DISABLED=true", "GORACE=atexit_sleep_ms=0", "TMPDIR=" + os.TempDir(),
	}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}
