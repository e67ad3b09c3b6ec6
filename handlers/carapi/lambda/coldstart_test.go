//go:build linux

package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// BenchmarkColdStart measures how long the first request to a new environment waits, from exec to the
// answer. It does so for a function that does nothing, for the API with secret and database, for the
// same step by step behind a proxy, which makes each step a little longer, and for the API with the
// name of an RDS instance, whose roots it then parses.
func BenchmarkColdStart(b *testing.B) {
	functions := zipped(b)
	db := pgtest.New(b)
	config := db.Pool.Config().ConnConfig
	database := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	var secret, connected, ready moment
	secrets := secretsManager(b, config, &secret)
	proxy := labtest.NewProxy(b, database, func(_ *labtest.Proxy, fromServer bool, piece []byte) []byte {
		switch {
		case !fromServer && len(piece) > 0: // a piece without bytes is the end of the previous start
			connected.first()
		case bytes.HasSuffix(piece, []byte("Z\x00\x00\x00\x05I")): // ReadyForQuery
			ready.first()
		}
		return piece
	})
	post, err := os.ReadFile(filepath.Join("testdata", "post-cars.json"))
	require.NoError(b, err)
	api := coldFunction{filepath.Join(functions, "createCar"), []string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + secrets, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
		"AWS_SESSION_TOKEN=local", "DB_NAME=" + config.Database, "DB_USER=" + config.User, "DB_SECRET_ARN=bench", "DB_SSL=false", "IDEMPOTENCY_HOURS=24",
	}, post}
	b.Run("Empty", func(b *testing.B) { coldFunction{filepath.Join(functions, "empty"), nil, []byte("{}")}.bench(b) })
	b.Run("CreateCar", func(b *testing.B) {
		api.at(database).bench(b)
		size, err := os.Stat(filepath.Join(functions, "createCar.zip"))
		require.NoError(b, err)
		labtest.AtMost(b, float64(size.Size())/1e6, 6, "MB-zip")
	})
	b.Run("Steps", func(b *testing.B) {
		names := []string{"ms-to-runtime-api", "ms-then-secret", "ms-then-database-called", "ms-then-session", "ms-then-answer"}
		sums := make([]time.Duration, len(names))
		for b.Loop() {
			connected.at.Store(0)
			ready.at.Store(0)
			started, answer, _ := api.at(proxy.Address).start(b)
			steps := []time.Time{started, answer.Asked, secret.time(), connected.time(), ready.time(), answer.Answered}
			for i := range sums {
				sums[i] += steps[i+1].Sub(steps[i])
			}
		}
		for i, sum := range sums {
			b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), names[i])
		}
	})
	b.Run("TLSToRDS", func(b *testing.B) {
		tls := api.at("bench.c0ffee000000.us-east-1.rds.amazonaws.com:5432")
		tls.env = append(tls.env, "DB_SSL=true") // the last one counts
		tls.event = []byte(`{"resource":"/openapi.json","httpMethod":"GET","path":"/openapi.json"}`)
		var asked time.Duration
		for b.Loop() {
			started, answer, _ := tls.start(b)
			asked += answer.Asked.Sub(started)
		}
		b.ReportMetric(float64(asked.Microseconds())/1000/float64(b.N), "ms-to-runtime-api")
	})
}

// zipped builds the functions as they are deployed, but for this machine. It returns the folder of the zips and of the unpacked programs.
func zipped(b *testing.B) (dir string) {
	b.Helper()
	dir = b.TempDir()
	command := exec.CommandContext(b.Context(), "go", "run", "./infra/lambdazip", "-out", dir, "createCar=handlers/carapi/lambda",
		"empty=handlers/carapi/lambda/testdata/empty")
	command.Dir, command.Env = labtest.Root(b), append(os.Environ(), "LAMBDA_GOARCH="+runtime.GOARCH)
	out, err := command.CombinedOutput()
	require.NoError(b, err, "%s", out)
	for _, name := range []string{"createCar", "empty"} {
		archive, err := zip.OpenReader(filepath.Join(dir, name+".zip"))
		require.NoError(b, err)
		file, err := archive.Open("bootstrap")
		require.NoError(b, err)
		program, err := io.ReadAll(file)
		require.NoError(b, err)
		require.NoError(b, archive.Close())
		require.NoError(b, os.WriteFile(filepath.Join(dir, name), program, 0o700))
	}
	return dir
}

// moment is when something happened.
type moment struct{ at atomic.Int64 } // Unix nanoseconds

func (m *moment) first()          { m.at.CompareAndSwap(0, time.Now().UnixNano()) }
func (m *moment) time() time.Time { return time.Unix(0, m.at.Load()) }

// secretsManager answers with the login of the database, notes when, and returns its URL.
func secretsManager(b *testing.B, config *pgx.ConnConfig, answered *moment) string {
	b.Helper()
	login, err := json.Marshal(map[string]string{"username": config.User, "password": config.Password})
	require.NoError(b, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": string(login)})
		answered.at.Store(time.Now().UnixNano())
	}))
	b.Cleanup(server.Close)
	return server.URL
}

// coldFunction is a program that is started again and again.
type coldFunction struct {
	program string
	env     []string
	event   []byte
}

// at returns the function with its database at host:port.
func (f coldFunction) at(address string) coldFunction {
	host, port, _ := net.SplitHostPort(address)
	f.env = append(append([]string{}, f.env...), "DB_HOST="+host, "DB_PORT="+port)
	return f
}

// bench reports ms to the first answer, and the anonymous memory then.
func (f coldFunction) bench(b *testing.B) {
	var took time.Duration
	var memory int
	for b.Loop() {
		started, answer, anonymous := f.start(b)
		took, memory = took+answer.Answered.Sub(started), memory+anonymous
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms-to-answer")
	b.ReportMetric(float64(memory)/1e6/float64(b.N), "MB-anonymous")
}

// start runs the program until its first answer. It returns how many bytes of its memory are its own, and not pages of its program file.
func (f coldFunction) start(b *testing.B) (started time.Time, answer lambdarun.Answer, anonymous int) {
	b.Helper()
	var output bytes.Buffer
	command := exec.CommandContext(b.Context(), f.program)
	command.Env, command.Stdout, command.Stderr = f.env, &output, &output
	function, err := lambdarun.Start(command)
	require.NoError(b, err)
	defer function.Close()
	answer, err = function.Invoke(b.Context(), f.event, time.Minute)
	require.NoError(b, err)
	require.True(b, !answer.Failed && (f.env == nil || strings.Contains(string(answer.Body), `"statusCode":20`)), "%s", answer.Body)
	rollup, err := os.ReadFile("/proc/" + strconv.Itoa(function.PID()) + "/smaps_rollup")
	require.NoError(b, err)
	_, rest, _ := bytes.Cut(rollup, []byte("Anonymous:"))
	kilobytes, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
	require.NoError(b, err)
	return function.Started, answer, kilobytes << 10
}
