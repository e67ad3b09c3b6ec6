package main

import (
	"bytes"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

var environment = map[string]string{
	"RETENTION_ENABLED": "false", "RETENTION_DAYS": "14", "STREAM_RETENTION_HOURS": "168", "SLOT_NAME": "outbox_relay",
	"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "outboxdb", "DB_USER": "outbox_retention_user", "DB_SECRET_ARN": "arn", "DB_SSL": "false",
}

// What a deployed function reads is tested with its zip (infra/zip_test.go).
func TestEnvironmentIsRefusedByName(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ variable, value, message string }{
		"EnabledMissing":      {"RETENTION_ENABLED", "", `RETENTION_ENABLED is "": set it to true or false`},
		"EnabledNoBoolean":    {"RETENTION_ENABLED", "yes", `RETENTION_ENABLED is "yes"`},
		"DaysNoNumber":        {"RETENTION_DAYS", "14d", `RETENTION_DAYS is "14d": set it to a number of days`},
		"DaysNotAboveStream":  {"RETENTION_DAYS", "8", "RETENTION_DAYS (Days) is 8: set it above 8"},
		"StreamHoursMissing":  {"STREAM_RETENTION_HOURS", "", `STREAM_RETENTION_HOURS is ""`},
		"StreamHoursNotBelow": {"STREAM_RETENTION_HOURS", "8760", "set it above 366"},
		"SlotMissing":         {"SLOT_NAME", "", `SLOT_NAME (Slot) is ""`},
		"SSLMissing":          {"DB_SSL", "", `DB_SSL is ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(environment)
			env[test.variable] = test.value
			_, err := newFunction(t.Context(), func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, test.message)
		})
	}
}

// The function always needs the database, because it deletes idempotency keys also while it is switched off.
func TestDatabaseAwayIsAnErrorAlsoWhenSwitchedOff(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"arn": `{"username":"outbox_retention_user","password":"x"}`}})
	f, err := newFunction(t.Context(), func(name string) string { return environment[name] }, slog.New(slog.NewJSONHandler(&log, nil)))
	require.NoError(t, err)
	f.secrets = secretsmanager.NewFromConfig(cloud)
	_, err = f.handle(t.Context()) // there is no database at that port
	require.ErrorContains(t, err, "connecting to the database")
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), `"enabled":false`)
	require.Contains(t, log.String(), `"level":"ERROR"`)
}
