package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// runEnv makes the test's binary run as the program itself. TestProcess starts it like that.
const runEnv = "CARAPI_LAMBDA_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// sample reads a proxy event and replaces ID in it with id.
func sample(t testing.TB, file, id string) events.APIGatewayProxyRequest {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	var event events.APIGatewayProxyRequest
	require.NoError(t, json.Unmarshal(bytes.ReplaceAll(data, []byte("ID"), []byte(id)), &event))
	return event
}

func setup(t testing.TB) (*gateway, *pgtest.DB) {
	t.Helper()
	db := pgtest.New(t)
	logger := slog.New(slog.DiscardHandler)
	api, err := carapi.New(carapi.Config{Pool: db.Pool, Logger: logger, Caller: caller, CORSOrigin: "*"})
	require.NoError(t, err)
	return &gateway{api, logger}, db
}

func send(t testing.TB, g *gateway, event events.APIGatewayProxyRequest) events.APIGatewayProxyResponse {
	t.Helper()
	response, err := g.handle(t.Context(), event)
	require.NoError(t, err)
	require.False(t, response.IsBase64Encoded)
	return response
}

func TestProxyEvents(t *testing.T) {
	t.Parallel()
	g, db := setup(t)
	created := send(t, g, sample(t, "post-cars.json", ""))
	require.Equal(t, 201, created.StatusCode, created.Body)
	require.Equal(t, []string{"application/json"}, created.MultiValueHeaders["Content-Type"])
	require.Equal(t, []string{"*"}, created.MultiValueHeaders["Access-Control-Allow-Origin"])
	var answer struct{ Car struct{ ID, Make string } }
	require.NoError(t, json.Unmarshal([]byte(created.Body), &answer))
	require.Equal(t, "Škoda", answer.Car.Make)
	require.Equal(t, []string{"/dev/cars/" + answer.Car.ID}, created.MultiValueHeaders["Location"])
	var traceparent string
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT traceparent FROM outbox").Scan(&traceparent))
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", traceparent)

	for name, test := range map[string]struct {
		file   string
		change func(*events.APIGatewayProxyRequest)
		status int
		body   string // part of the answer
	}{
		"Get": {"get-car.json", func(*events.APIGatewayProxyRequest) {}, 200, answer.Car.ID},
		"Patch": {"get-car.json", func(e *events.APIGatewayProxyRequest) {
			e.HTTPMethod, e.Body = "PATCH", `{"color":"red"}`
			e.MultiValueHeaders["Content-Type"] = []string{"application/json"}
		}, 200, `"color":"red"`},
		"UnknownCar": {"get-car.json", func(e *events.APIGatewayProxyRequest) { e.Path = "/cars/7" }, 404, "not found"},
		"Base64Body": {"post-cars.json", func(e *events.APIGatewayProxyRequest) {
			e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte(e.Body)), true
		}, 201, "Škoda"},
		"Base64NotUTF8": {"post-cars.json", func(e *events.APIGatewayProxyRequest) {
			e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte("{\"make\":\"\xff\"}")), true
		}, 400, "the body is not valid UTF-8"},
		"BodyMissing":  {"post-cars.json", func(e *events.APIGatewayProxyRequest) { e.Body = "" }, 400, "the body is empty"},
		"BodyTooLarge": {"post-cars.json", func(e *events.APIGatewayProxyRequest) { e.Body += strings.Repeat(" ", 1<<20) }, 413, "larger than 1048576"},
		"SingleHeaders": {"post-cars.json", func(e *events.APIGatewayProxyRequest) {
			e.MultiValueHeaders = nil // as the console's test button sends it
		}, 201, "Škoda"},
		"NoSuchPath":      {"post-cars.json", func(e *events.APIGatewayProxyRequest) { e.Path = "/trucks" }, 404, "not found"},
		"Preflight":       {"post-cars.json", func(e *events.APIGatewayProxyRequest) { e.HTTPMethod = "OPTIONS" }, 200, ""},
		"PathNotAnURL":    {"get-car.json", func(e *events.APIGatewayProxyRequest) { e.Path = "/cars/%zz" }, 404, "not found"},
		"Base64NotBase64": {"post-cars.json", func(e *events.APIGatewayProxyRequest) { e.IsBase64Encoded = true }, 400, "the body ended early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event := sample(t, test.file, answer.Car.ID)
			test.change(&event)
			response := send(t, g, event)
			require.Equal(t, test.status, response.StatusCode, response.Body)
			require.Contains(t, response.Body, test.body)
		})
	}
}

func TestLambdasTraceWins(t *testing.T) {
	t.Parallel()
	g, db := setup(t)
	event := sample(t, "post-cars.json", "")
	delete(event.MultiValueHeaders, "traceparent")
	event.MultiValueHeaders["X-Amzn-Trace-Id"] = []string{"Root=1-67891233-abcdef012345678912345678"}
	// aws-lambda-go passes the runtime API's trace header like this.
	ctx := context.WithValue(t.Context(), "x-amzn-trace-id", "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1") //nolint:revive,staticcheck // its key
	response, err := g.handle(ctx, event)
	require.NoError(t, err)
	require.Equal(t, 201, response.StatusCode)
	var traceparent string
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT traceparent FROM outbox").Scan(&traceparent))
	require.Equal(t, "00-67891233abcdef012345678912345678-53995c3f42cd8ad8-01", traceparent)
}

func TestLocationOnACustomDomain(t *testing.T) {
	t.Parallel()
	g, _ := setup(t)
	event := sample(t, "post-cars.json", "")
	event.RequestContext.Path = event.Path // no stage in the address
	require.True(t, strings.HasPrefix(send(t, g, event).MultiValueHeaders["Location"][0], "/cars/"))
}

// TestProcess runs the whole program against the Lambda runtime API, Secrets Manager's API and the test's database.
func TestProcess(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	url, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	secrets := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		signed := r.Header.Get("Authorization")
		if !strings.Contains(signed, " Credential=test/") || !strings.Contains(signed, "/eu-west-1/secretsmanager/aws4_request") ||
			r.Header.Get("X-Amz-Security-Token") != "session" { // a role's credentials are nothing without it
			w.WriteHeader(http.StatusForbidden)
			return
		}
		value := fmt.Sprintf(`{"username":%q,"password":%q}`, url.User, url.Password)
		_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": value})
	}))
	t.Cleanup(secrets.Close)

	command, _ := program(t, map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": secrets.URL,
		"AWS_REGION":                       "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "session",
		"DB_HOST": url.Host, "DB_PORT": fmt.Sprint(url.Port), "DB_NAME": url.Database, "DB_USER": url.User,
		"DB_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:000000000000:secret:db", "DB_SSL": "false", "IDEMPOTENCY_HOURS": "3",
	})
	function, err := lambdarun.Start(command)
	require.NoError(t, err)
	t.Cleanup(function.Close)
	event, err := json.Marshal(withKey(sample(t, "post-cars.json", "")))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	defer cancel()
	answer, err := function.Invoke(ctx, event, time.Minute)
	require.NoError(t, err)
	var response events.APIGatewayProxyResponse
	require.NoError(t, json.Unmarshal(answer.Body, &response), "%s", answer.Body)
	require.Equal(t, 201, response.StatusCode, "%s", answer.Body)
	var sessions int
	require.NoError(t, db.Pool.QueryRow(t.Context(),
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'carapi'").Scan(&sessions))
	require.Equal(t, 1, sessions)
	var keys int
	require.NoError(t, db.Pool.QueryRow(t.Context(),
		"SELECT count(*) FROM idempotency WHERE expires_at BETWEEN now() + interval '2:50' AND now() + interval '3:00'").Scan(&keys))
	require.Equal(t, 1, keys)
}

func TestWrongEnvironmentEndsTheProcess(t *testing.T) {
	t.Parallel()
	database := map[string]string{
		"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "outboxdb", "DB_USER": "api", "DB_SECRET_ARN": "arn", "DB_SSL": "false",
	}
	for name, test := range map[string]struct{ variable, value, message string }{
		"Port":         {"DB_PORT", "postgres", `DB_PORT is \"postgres\": set it to the port of the instance`},
		"HoursMissing": {"IDEMPOTENCY_HOURS", "", `IDEMPOTENCY_HOURS is \"\": set it to 1 to 720 hours`},
		"HoursNone":    {"IDEMPOTENCY_HOURS", "0", `IDEMPOTENCY_HOURS is \"0\"`},
		"HoursTooMany": {"IDEMPOTENCY_HOURS", "721", `IDEMPOTENCY_HOURS is \"721\"`},
		"HoursText":    {"IDEMPOTENCY_HOURS", "24h", `IDEMPOTENCY_HOURS is \"24h\"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(database)
			env[test.variable] = test.value
			command, output := program(t, env)
			var exit *exec.ExitError
			require.ErrorAs(t, command.Run(), &exit)
			require.Equal(t, 1, exit.ExitCode())
			require.Contains(t, output.String(), test.message)
		})
	}
}

func withKey(event events.APIGatewayProxyRequest) events.APIGatewayProxyRequest {
	event.MultiValueHeaders["Idempotency-Key"] = []string{"k"}
	return event
}

// API Gateway says who the caller is, so two callers may use the same key.
func TestKeysBelongToWhomTheAuthorizerHasFound(t *testing.T) {
	t.Parallel()
	g, _ := setup(t)
	const sts = "arn:aws:sts::000000000000:assumed-role/"
	callers := map[string][]events.APIGatewayProxyRequestContext{ // the contexts of one caller
		"Anonymous": {{}, {Identity: events.APIGatewayRequestIdentity{SourceIP: "203.0.113.8"}}},
		"User":      {{Identity: events.APIGatewayRequestIdentity{UserArn: "arn:aws:iam::000000000000:user/ann"}}},
		"OtherUser": {{Identity: events.APIGatewayRequestIdentity{UserArn: "arn:aws:iam::000000000000:user/path/bob"}}},
		"Role": {
			{Identity: events.APIGatewayRequestIdentity{UserArn: sts + "orders/task-1"}},
			{Identity: events.APIGatewayRequestIdentity{UserArn: sts + "orders/task-2"}},
		},
		"OtherRole":     {{Identity: events.APIGatewayRequestIdentity{UserArn: sts + "billing/task-1"}}},
		"IdentityPool":  {{Identity: events.APIGatewayRequestIdentity{UserArn: sts + "app/CognitoIdentityCredentials", CognitoIdentityID: "us-east-1:1"}}},
		"OtherIdentity": {{Identity: events.APIGatewayRequestIdentity{UserArn: sts + "app/CognitoIdentityCredentials", CognitoIdentityID: "us-east-1:2"}}},
		"Principal":     {{Authorizer: map[string]any{"principalId": "ann"}}},
		"UserPool":      {{Authorizer: map[string]any{"claims": map[string]any{"sub": "ann", "iat": "1"}}}, {Authorizer: map[string]any{"claims": map[string]any{"sub": "ann", "iat": "2"}}}},
		"OtherInPool":   {{Authorizer: map[string]any{"claims": map[string]any{"sub": "bob"}}}},
	}
	locations := map[string]string{}
	for name, contexts := range callers {
		for i, requestContext := range contexts {
			event := withKey(sample(t, "post-cars.json", ""))
			requestContext.Path = event.RequestContext.Path
			event.RequestContext = requestContext
			response := send(t, g, event)
			require.Equal(t, 201, response.StatusCode, response.Body)
			location := response.MultiValueHeaders["Location"][0]
			require.True(t, strings.HasPrefix(location, "/dev/cars/"), "also of a stored answer")
			if i > 0 {
				require.Equal(t, []string{"true"}, response.MultiValueHeaders["Idempotency-Replayed"], name)
			}
			owner, taken := locations[location]
			require.True(t, !taken || owner == name, "%s got %s's car", name, owner)
			locations[location] = name
		}
	}
	require.Len(t, locations, len(callers))
}

// program is this test's binary as the Lambda function, with an environment of nothing but env.
func program(t testing.TB, env map[string]string) (*exec.Cmd, *labtest.Log) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), self)
	command.Env = []string{runEnv + "=1"}
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	output := labtest.NewLog(t)
	command.Stdout, command.Stderr = output, output
	return command, output
}
