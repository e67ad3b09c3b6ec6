package main

import (
	"bytes"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

func environment(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "outboxdb", "DB_USER": "outbox_canary_user", "DB_SECRET_ARN": "arn", "DB_SSL": "false",
	}
}

func TestEnvironmentIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"DB_HOST", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "DB_SSL"} {
		env := maps.Clone(environment(t))
		env[name] = ""
		_, err := newFunction(t.Context(), func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, name)
	}
}

// What a deployed function commits is tested with its zip (infra/zip_test.go).
func TestDatabaseAwayIsAnError(t *testing.T) {
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"arn": `{"username":"outbox_canary_user","password":"x"}`}})
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", *cloud.BaseEndpoint)
	t.Setenv("AWS_REGION", awslocal.Region)
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	var log bytes.Buffer
	env := environment(t)
	f, err := newFunction(t.Context(), func(name string) string { return env[name] }, slog.New(slog.NewJSONHandler(&log, nil)))
	require.NoError(t, err)
	t.Cleanup(f.pool.Close)
	_, err = f.handle(t.Context()) // there is no database at that port
	require.ErrorContains(t, err, "connecting to the database")
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), `"level":"ERROR"`)
}
