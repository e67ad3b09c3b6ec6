package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/internal/dbuser"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

func TestCommands(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := start(t, s.env)

	before := p.command(t, `{"command":"status"}`)
	require.False(t, before.failed, before.body)
	files := migrationFiles(t)
	var pending []string
	for i, file := range files {
		pending = append(pending, fmt.Sprintf(`{"version":%d,"file":%q,"appliedAt":null}`, i+1, file))
	}
	require.JSONEq(t, fmt.Sprintf(`{"version":0,"pending":%d,"files":[%s]}`, len(files), strings.Join(pending, ",")), before.body)

	up := p.command(t, `{"command":"up"}`)
	require.False(t, up.failed, up.body)
	require.JSONEq(t, fmt.Sprintf(`{"version":%d,"ran":["%s"],"users":[%q,%q,%q,%q,%q]}`,
		len(files), strings.Join(files, `","`), s.api, s.dms, s.retention, s.carstats, s.canary), up.body)
	api, err := s.login(t, s.api, "first-api-password")
	require.NoError(t, err)
	dms, err := s.login(t, s.dms, "first-dms-password")
	require.NoError(t, err)
	retention, err := s.login(t, s.retention, "first-retention-password")
	require.NoError(t, err)
	carstats, err := s.login(t, s.carstats, "first-carstats-password")
	require.NoError(t, err)

	partition := p.command(t, `{"command":"partition"}`)
	require.False(t, partition.failed, partition.body)
	require.Contains(t, partition.body, `"first":"outbox_until_`)
	require.JSONEq(t, `{"first":"","until":"0001-01-01T00:00:00Z","attached":0}`, p.command(t, `{"command":"partition"}`).body)

	again := p.command(t, `{"command":"up"}`)
	require.JSONEq(t, fmt.Sprintf(`{"version":%d,"ran":[],"users":[%q,%q,%q,%q,%q]}`, len(files), s.api, s.dms, s.retention, s.carstats, s.canary), again.body)
	var after statusAnswer
	require.NoError(t, json.Unmarshal([]byte(p.command(t, `{"command":"status"}`).body), &after))
	require.EqualValues(t, len(files), after.Version)
	require.Zero(t, after.Pending)
	require.WithinDuration(t, time.Now(), *after.Files[0].AppliedAt, 30*time.Minute)

	// Each user is the one of its component, and a login of before sees nothing of all this.
	_, err = api.Exec(t.Context(), "SELECT * FROM cars")
	require.NoError(t, err)
	_, err = dms.Exec(t.Context(), "SELECT * FROM outbox")
	require.NoError(t, err)
	_, err = retention.Exec(t.Context(), "DELETE FROM outbox")
	require.NoError(t, err)
	const tend = "SELECT outbox_partitions_attach(), outbox_partition_close('14 days')"
	_, err = retention.Exec(t.Context(), tend)
	require.NoError(t, err)
	_, err = api.Exec(t.Context(), tend)
	require.ErrorContains(t, err, "permission denied for function outbox_partitions_attach")
	_, err = carstats.Exec(t.Context(), "SELECT * FROM car_stats")
	require.NoError(t, err)
	require.NotContains(t, p.output(), "first-api-password")
}

// Scripts outside of the network learn here whether a relay can go on from its slot.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := start(t, s.env)
	require.JSONEq(t, `{"slots":[]}`, p.command(t, `{"command":"slots"}`).body)

	name := s.super.Database + "_dms"
	s.exec(t, fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', 'test_decoding')", name))
	t.Cleanup(func() { s.exec(t, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", name)) })
	require.JSONEq(t, fmt.Sprintf(`{"slots":[{"name":%q,"plugin":"test_decoding","active":false,"walStatus":"reserved","usable":true}]}`, name),
		p.command(t, `{"command":"slots"}`).body)
}

func TestCommandsUnknown(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	for event, message := range map[string]string{
		`{"command":"down"}`:                   `command \"down\" is unknown: send {\"command\":\"up\"}`,
		`{}`:                                   `command \"\" is unknown: send`,
		`[]`:                                   `the event is not a JSON object: send`,
		`{"command":"rotate"}`:                 `user \"\" is unknown: send`,
		`{"command":"rotate","user":"master"}`: `user \"master\" is unknown: send`,
		`{"command":"status"}`:                 `DB_SSL is \"\": set it to true`, // the environment is read when it is needed
	} {
		answer := p.command(t, event)
		require.True(t, answer.failed, event)
		require.Contains(t, answer.body, message)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := start(t, s.env)
	require.False(t, p.command(t, `{"command":"up"}`).failed)
	for user, rotated := range map[string]struct{ name, arn, password string }{
		"api":       {s.api, "arn:api", "first-api-password"},
		"dms":       {s.dms, "arn:dms", "first-dms-password"},
		"retention": {s.retention, "arn:retention", "first-retention-password"},
		"carstats":  {s.carstats, "arn:carstats", "first-carstats-password"},
		"canary":    {s.canary, "arn:canary", "first-canary-password"},
	} {
		open, err := s.login(t, rotated.name, rotated.password)
		require.NoError(t, err)

		answer := p.command(t, fmt.Sprintf(`{"command":"rotate","user":%q}`, user))
		require.False(t, answer.failed, answer.body)
		require.JSONEq(t, fmt.Sprintf(`{"user":%q,"secretVersion":"version-2"}`, rotated.name), answer.body)

		_, err = s.login(t, rotated.name, rotated.password)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "28P01", refused.Code)
		stored := s.secrets.get(t, rotated.arn)
		password := stored["password"].(string)
		require.Regexp(t, `^[A-Z2-7]{26,}$`, password)
		_, err = s.login(t, rotated.name, password)
		require.NoError(t, err)
		_, err = open.Exec(t.Context(), "SELECT 1")
		require.NoError(t, err, "an open session goes on")
		require.NotContains(t, answer.body, password)
	}
	require.Equal(t, "db.example.com", s.secrets.get(t, "arn:dms")["host"], "what DMS reads from the secret stays")

	// A refused write leaves everything as it was, and says what to do in case it was not refused but its answer lost.
	s.secrets.mu.Lock()
	s.secrets.refused = true
	s.secrets.mu.Unlock()
	current := s.secrets.get(t, "arn:api")["password"].(string)
	answer := p.command(t, `{"command":"rotate","user":"api"}`)
	require.True(t, answer.failed)
	require.Contains(t, answer.body, `run {\"command\":\"up\"} now`)
	require.Contains(t, answer.body, "writing secret arn:api")
	_, err := s.login(t, s.api, current)
	require.NoError(t, err)

	// That up puts right what a lost answer leaves behind.
	s.secrets.set("arn:api", fmt.Sprintf(`{"username":%q,"password":"stored-all-the-same"}`, s.api))
	require.False(t, p.command(t, `{"command":"up"}`).failed)
	_, err = s.login(t, s.api, "stored-all-the-same")
	require.NoError(t, err)
	require.NotContains(t, p.output(), current)
}

// A request that sets passwords reads the secrets only when its turn has come. Otherwise a slow request
// could set a password again that a rotation has just replaced.
func TestSecretsAreReadInTurn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := start(t, s.env)
	require.False(t, p.command(t, `{"command":"up"}`).failed)

	holder, err := pgx.ConnectConfig(t.Context(), s.super)
	require.NoError(t, err)
	defer func() { _ = holder.Close(t.Context()) }()
	tx, err := holder.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, dbuser.Lock(t.Context(), tx))
	var up lambdarun.Answer
	var waiting errgroup.Group
	waiting.Go(func() (err error) {
		up, err = p.function.Invoke(t.Context(), []byte(`{"command":"up"}`), labtest.Patience)
		return err
	})
	labtest.Eventually(t, "a migration that waits for the lock", func() bool {
		return s.ask(t, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'") == "1"
	})
	s.secrets.set("arn:api", fmt.Sprintf(`{"username":%q,"password":"rotated-meanwhile"}`, s.api))
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, waiting.Wait())
	require.False(t, up.Failed, "%s", up.Body)
	_, err = s.login(t, s.api, "rotated-meanwhile")
	require.NoError(t, err)
}

// A migration that waits for a table would hold up every writer behind it.
func TestTableInUseFailsSoon(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := start(t, s.env)
	require.False(t, p.command(t, `{"command":"up"}`).failed)
	s.exec(t, "DROP PUBLICATION outbox_publication; DELETE FROM goose_db_version WHERE version_id >= 3")
	holder, err := pgx.ConnectConfig(t.Context(), s.super)
	require.NoError(t, err)
	defer func() { _ = holder.Close(t.Context()) }()
	_, err = holder.Exec(t.Context(), "BEGIN; LOCK TABLE outbox")
	require.NoError(t, err)
	up := p.command(t, `{"command":"up"}`)
	require.True(t, up.failed)
	require.Contains(t, up.body, "canceling statement due to lock timeout")
	require.Contains(t, up.body, "statement: CREATE PUBLICATION")
}

func TestUnusableSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ api, message string }{
		"NotJSON":    {`hunter2`, "reading secret arn:api: its value must be a JSON object with username and password"},
		"Null":       {`null`, "reading secret arn:api: its value must be a JSON object with username and password"},
		"NoPassword": {`{"username":"x"}`, "reading secret arn:api: its value must be a JSON object with username and password"},
		"Number":     {`{"username":"x","password":1}`, "reading secret arn:api: its value must be a JSON object with username and password"},
		"Master":     {`{"username":"master","password":"hunter2"}`, `making database user \"master\": this is the user who makes the others`},
		"SameUser":   {`{"username":"DMS","password":"hunter2"}`, "the secrets of API_SECRET_ARN and DMS_SECRET_ARN are both of user"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			if name == "SameUser" {
				test.api = fmt.Sprintf(`{"username":%q,"password":"hunter2"}`, s.dms)
			}
			s.secrets.set("arn:api", test.api)
			p := start(t, s.env)
			answer := p.command(t, `{"command":"up"}`)
			require.True(t, answer.failed)
			require.Contains(t, answer.body, test.message)
			require.Contains(t, answer.body, fmt.Sprintf("the database is at version %d, its users are as they were", len(migrationFiles(t))))
			require.Equal(t, "0", s.ask(t, "SELECT count(*)::text FROM pg_roles WHERE rolname IN ($1, $2)", s.api, s.dms))
			require.NotContains(t, answer.body+p.output(), "hunter2")
		})
	}
}

func TestWithin(t *testing.T) {
	t.Parallel()

	t.Run("WorkThatDoesNotEndIsLeft", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			hung := make(chan struct{})
			defer close(hung)
			began := time.Now()
			_, err := within(ctx, func(context.Context) (int, error) {
				<-hung
				return 0, nil
			})
			require.EqualError(t, err, "not done 15s before the function's timeout: raise the timeout if the work needs more time")
			require.Equal(t, time.Minute-reserve+patience, time.Since(began))
		})
	})

	t.Run("WorkThatEndsSaysWhere", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := within(ctx, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, fmt.Errorf("in the third statement: %w", ctx.Err())
			})
			require.ErrorContains(t, err, "not done 15s before the function's timeout")
			require.ErrorContains(t, err, "in the third statement")
		})
	})

	t.Run("PanicIsAnError", func(t *testing.T) {
		t.Parallel()
		_, err := within(t.Context(), func(context.Context) (int, error) { panic("unexpected") })
		require.ErrorContains(t, err, "panic: unexpected")
		require.ErrorContains(t, err, "main_test.go")
	})
}
