package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/postgres/postgrestest"
	migrations "rds-outbox-demo/sql/migrations"
)

// runEnv makes the test's binary run as the program itself. The tests start it like that.
const runEnv = "MIGRATE_LAMBDA_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
	}
	os.Exit(runTests(m))
}

// runTests gives the tests a server of their own, which checks passwords and whose owner of everything, master, is no superuser. As on
// RDS, master gives replication by role rds_replication. Up to PostgreSQL 15 only a superuser can give the attribute REPLICATION.
func runTests(m *testing.M) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binaries, err := postgrestest.FindBinaries("../..")
	if err != nil {
		code := fail(err)
		if os.Getenv("CI") != "true" {
			code = 0 // the test is skipped, because npm has not run
		}
		return code
	}
	dir, err := os.MkdirTemp("", "migrate-lambda-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // as root the server runs as another user
	}
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := postgres.Start(context.Background(), postgres.Config{Dir: dir, Binaries: binaries})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = server.Kill() }()
	conn, err := pgx.Connect(context.Background(), server.URL())
	if err == nil {
		_, err = conn.Exec(context.Background(), `
			CREATE ROLE rds_replication;
			CREATE ROLE master LOGIN CREATEROLE PASSWORD 'master';
			GRANT rds_replication TO master WITH ADMIN OPTION`)
		_ = conn.Close(context.Background())
	}
	if err != nil {
		return fail(err)
	}
	_ = os.Setenv(pgtest.EnvURL, server.URL())
	return m.Run()
}

// migrationFiles returns the files of the tree, sorted, so that the tests hold for any number of files.
func migrationFiles(t *testing.T) []string {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	return files
}

// stage is what the function finds in a deployed stage, which is an empty database and five secrets.
type stage struct {
	super                                 *pgx.ConnConfig // may look at everything
	api, dms, retention, carstats, canary string          // names of the users
	secrets                               *secretStore
	env                                   map[string]string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	super, err := pgx.ParseConfig(pgtest.NewEmpty(t))
	require.NoError(t, err)
	id := strings.ToLower(rand.Text()[:8]) // roles belong to the server
	s := &stage{super: super, api: "api_" + id, dms: "dms_" + id, retention: "retention_" + id, carstats: "carstats_" + id, canary: "canary_" + id}
	s.exec(t, "ALTER DATABASE "+super.Database+" OWNER TO master")
	t.Cleanup(func() {
		for _, role := range []string{s.api, s.dms, s.retention, s.carstats, s.canary} {
			if s.ask(t, "SELECT count(*)::text FROM pg_roles WHERE rolname = $1", role) == "1" {
				s.exec(t, "DROP OWNED BY "+role)
				s.exec(t, "DROP ROLE "+role)
			}
		}
	})
	s.secrets = newSecretStore(t, map[string]string{
		"arn:master":    `{"username":"master","password":"master"}`,
		"arn:api":       fmt.Sprintf(`{"username":%q,"password":"first-api-password"}`, s.api),
		"arn:dms":       fmt.Sprintf(`{"username":%q,"password":"first-dms-password","host":"db.example.com","port":5432}`, s.dms),
		"arn:retention": fmt.Sprintf(`{"username":%q,"password":"first-retention-password"}`, s.retention),
		"arn:carstats":  fmt.Sprintf(`{"username":%q,"password":"first-carstats-password"}`, s.carstats),
		"arn:canary":    fmt.Sprintf(`{"username":%q,"password":"first-canary-password"}`, s.canary),
	})
	s.env = map[string]string{
		"DB_HOST": super.Host, "DB_PORT": fmt.Sprint(super.Port), "DB_NAME": super.Database, "DB_USER": "master", "DB_SSL": "false",
		"DB_SECRET_ARN": "arn:master", "API_SECRET_ARN": "arn:api", "DMS_SECRET_ARN": "arn:dms", "RETENTION_SECRET_ARN": "arn:retention",
		"CARSTATS_SECRET_ARN":              "arn:carstats",
		"CANARY_SECRET_ARN":                "arn:canary",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": s.secrets.url, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
	}
	return s
}

func (s *stage) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.ConnectConfig(context.Background(), s.super)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(context.Background(), sql)
	require.NoError(t, err)
}

// ask returns one value as text.
func (s *stage) ask(t *testing.T, sql string, args ...any) (answer string) {
	t.Helper()
	conn, err := pgx.ConnectConfig(context.Background(), s.super)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(context.Background(), sql, args...).Scan(&answer))
	return answer
}

func (s *stage) login(t *testing.T, user, password string) (*pgx.Conn, error) {
	t.Helper()
	config := s.super.Copy()
	config.User, config.Password = user, password
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

// secretStore is Secrets Manager, reached through the real SDK.
type secretStore struct {
	url string

	mu      sync.Mutex
	values  map[string]string
	refused bool // PutSecretValue fails
}

func newSecretStore(t *testing.T, values map[string]string) *secretStore {
	t.Helper()
	store := &secretStore{values: values}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	store.url = server.URL
	return store
}

func (s *secretStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var input struct{ SecretId, SecretString string } //nolint:revive // the service's names
	_ = json.NewDecoder(r.Body).Decode(&input)
	_, known := s.values[input.SecretId]
	put := strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".PutSecretValue")
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if !known || put && s.refused {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"AccessDeniedException","Message":"not allowed"}`)
		return
	}
	if put {
		s.values[input.SecretId] = input.SecretString
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"ARN": input.SecretId, "SecretString": s.values[input.SecretId], "VersionId": "version-2"})
}

func (s *secretStore) get(t *testing.T, arn string) (members map[string]any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(t, json.Unmarshal([]byte(s.values[arn]), &members))
	return members
}

func (s *secretStore) set(arn, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[arn] = value
}

// program is the whole Lambda program behind the Lambda runtime API.
type program struct {
	function *lambdarun.Function
	log      *labtest.Log
}

type answer struct {
	failed bool // an error of the function
	body   string
}

// start runs the program with an environment of nothing but env.
func start(t *testing.T, env map[string]string) *program {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), self)
	command.Env = []string{runEnv + "=1", "GORACE=atexit_sleep_ms=0"}
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	log := labtest.NewLog(t)
	command.Stdout, command.Stderr = log, log
	function, err := lambdarun.Start(command)
	require.NoError(t, err)
	t.Cleanup(function.Close)
	return &program{function, log}
}

// output ends the program and returns everything that it wrote.
func (p *program) output() string {
	p.function.Close()
	return p.log.String()
}

// invoke sends one event, which the function has timeout for, and returns what it answered.
func (p *program) invoke(t *testing.T, event any, timeout time.Duration) answer {
	t.Helper()
	data, err := json.Marshal(event)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout+labtest.Patience)
	defer cancel()
	a, err := p.function.Invoke(ctx, data, timeout)
	require.NoError(t, err)
	return answer{a.Failed, string(a.Body)}
}

// command invokes by hand.
func (p *program) command(t *testing.T, event string) answer {
	t.Helper()
	return p.invoke(t, json.RawMessage(event), labtest.Patience)
}
