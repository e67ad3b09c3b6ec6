package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/cfn"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// signature is what nobody may see of the presigned URL.
const signature = "c2lnbmF0dXJl"

// presigned is the place of S3 to which CloudFormation wants its answer.
type presigned struct {
	url     string
	answers chan cfn.Response
}

// newPresigned takes one answer with the status. With a status other than 200 it refuses the answer as S3
// does, and repeats the signed text.
func newPresigned(t *testing.T, status int) *presigned {
	t.Helper()
	p := &presigned{answers: make(chan cfn.Response, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var response cfn.Response
		if r.Method != http.MethodPut || r.Header.Get("Content-Type") != "" || len(body) > 4096 || json.Unmarshal(body, &response) != nil {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(status)
		if status != http.StatusOK {
			_, _ = fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>%s</SignatureProvided></Error>", signature)
		}
		p.answers <- response
	}))
	t.Cleanup(server.Close)
	p.url = server.URL + "/answer?X-Amz-Signature=" + signature
	return p
}

func (p *presigned) request(kind cfn.RequestType) cfn.Event {
	event := cfn.Event{
		RequestType: kind, RequestID: "unique", ResponseURL: p.url, ResourceType: "Custom::DatabaseMigration", LogicalResourceID: "DatabaseMigration",
		StackID:            "arn:aws:cloudformation:eu-west-1:000000000000:stack/rds-outbox-demo-dev/1",
		ResourceProperties: map[string]any{"ServiceToken": "arn:function", "MigrationsHash": "abc"},
	}
	if kind != cfn.RequestCreate {
		event.PhysicalResourceID = physicalID
	}
	return event
}

// ask sends one request to the program and returns what CloudFormation got.
func (p *presigned) ask(t *testing.T, lambda *program, kind cfn.RequestType) cfn.Response {
	t.Helper()
	return p.askWithin(t, lambda, kind, labtest.Patience)
}

func (p *presigned) askWithin(t *testing.T, lambda *program, kind cfn.RequestType, timeout time.Duration) cfn.Response {
	t.Helper()
	answer := lambda.invoke(t, p.request(kind), timeout)
	require.False(t, answer.failed, answer.body)
	select {
	case response := <-p.answers:
		require.Equal(t, physicalID, response.PhysicalResourceID)
		require.Equal(t, []string{"unique", "DatabaseMigration", "arn:aws:cloudformation:eu-west-1:000000000000:stack/rds-outbox-demo-dev/1"},
			[]string{response.RequestID, response.LogicalResourceID, response.StackID})
		return response
	default:
		t.Fatal("CloudFormation got no answer")
	}
	panic("unreachable")
}

func TestCustomResource(t *testing.T) {
	t.Parallel()

	t.Run("CreateUpdateDelete", func(t *testing.T) {
		t.Parallel()
		s, newest := newStage(t), fmt.Sprint(len(migrationFiles(t)))
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		for _, kind := range []cfn.RequestType{cfn.RequestCreate, cfn.RequestUpdate} {
			response := cloudFormation.ask(t, lambda, kind)
			require.Equal(t, cfn.StatusSuccess, response.Status, response.Reason)
			require.Equal(t, map[string]any{"Version": newest}, response.Data)
		}
		_, err := s.login(t, s.api, "first-api-password")
		require.NoError(t, err)
		response := cloudFormation.ask(t, lambda, cfn.RequestDelete)
		require.Equal(t, cfn.StatusSuccess, response.Status, response.Reason)
		require.Equal(t, newest, s.ask(t, "SELECT max(version_id)::text FROM goose_db_version"))

		written := lambda.output()
		require.Contains(t, written, `"msg":"custom resource","request":"Create","answer":{"version":`+newest+`,"ran":["00001_cars.sql"`)
		require.Contains(t, written, `"request":"Delete"`)
		require.NotContains(t, written, signature)
	})

	// A password that is changed at any time, by a command or by a deployment, is the same on both sides afterwards.
	t.Run("AnotherPasswordVersionRotates", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		require.Equal(t, cfn.StatusSuccess, cloudFormation.ask(t, lambda, cfn.RequestCreate).Status)
		require.False(t, lambda.command(t, `{"command":"rotate","user":"api"}`).failed)
		names := map[string]string{"arn:api": s.api, "arn:dms": s.dms, "arn:retention": s.retention, "arn:carstats": s.carstats, "arn:canary": s.canary}
		passwords := func() map[string]string {
			found := map[string]string{}
			for arn, name := range names {
				found[arn] = s.secrets.get(t, arn)["password"].(string)
				_, err := s.login(t, name, found[arn])
				require.NoError(t, err, "secret and database agree about %s", arn)
			}
			return found
		}
		rotated := passwords()

		update := cloudFormation.request(cfn.RequestUpdate)
		deploy := func(before, after string) {
			t.Helper()
			update.OldResourceProperties = map[string]any{"PasswordVersion": before}
			update.ResourceProperties = map[string]any{"PasswordVersion": after}
			require.False(t, lambda.invoke(t, update, labtest.Patience).failed)
			response := <-cloudFormation.answers
			require.Equal(t, cfn.StatusSuccess, response.Status, response.Reason)
		}
		deploy("1", "1")
		require.Equal(t, rotated, passwords(), "an ordinary deployment leaves the rotated password")
		for _, version := range [][2]string{{"1", "2"}, {"2", "1"}} { // the second is a rollback, or a forgotten --param
			before := passwords()
			deploy(version[0], version[1])
			for arn, password := range passwords() {
				require.NotEqual(t, before[arn], password, arn)
			}
		}
		require.Equal(t, "db.example.com", s.secrets.get(t, "arn:dms")["host"], "what DMS reads from the secret stays")
	})

	// The rollback of an update runs the previous program. It must accept the migrations that the failed
	// program has already applied.
	t.Run("RollbackLeavesANewerDatabase", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		require.Equal(t, cfn.StatusSuccess, cloudFormation.ask(t, lambda, cfn.RequestCreate).Status)
		s.exec(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, true)")
		response := cloudFormation.ask(t, lambda, cfn.RequestUpdate)
		require.Equal(t, cfn.StatusSuccess, response.Status, response.Reason)
		require.Equal(t, map[string]any{"Version": "9000"}, response.Data)
	})

	t.Run("FailedMigrationSaysWhy", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.exec(t, "CREATE TABLE outbox (n int)")
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		response := cloudFormation.ask(t, lambda, cfn.RequestCreate)
		require.Equal(t, cfn.StatusFailed, response.Status)
		require.Contains(t, response.Reason, `migrating up with 00002_outbox.sql`)
		require.Contains(t, response.Reason, `relation "outbox" already exists`)
		require.Contains(t, response.Reason, `done before it: 00001_cars.sql`)
		require.Contains(t, lambda.output(), `relation \"outbox\" already exists`)
	})

	t.Run("NoConfigurationFailsCreateButNotDelete", func(t *testing.T) {
		t.Parallel()
		lambda, cloudFormation := start(t, map[string]string{"DB_PORT": "postgres", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}), newPresigned(t, http.StatusOK)
		response := cloudFormation.ask(t, lambda, cfn.RequestCreate)
		require.Equal(t, cfn.StatusFailed, response.Status)
		for _, variable := range []string{"DB_PORT", "DB_SSL", "API_SECRET_ARN", "DMS_SECRET_ARN", "RETENTION_SECRET_ARN", "CARSTATS_SECRET_ARN", "CANARY_SECRET_ARN"} {
			require.Contains(t, response.Reason, variable)
		}
		response = cloudFormation.ask(t, lambda, cfn.RequestDelete)
		require.Equal(t, cfn.StatusSuccess, response.Status, response.Reason)
	})

	t.Run("DatabaseGoneFailsUpdateButNotDelete", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.env["DB_PORT"] = "1"
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		response := cloudFormation.ask(t, lambda, cfn.RequestUpdate)
		require.Equal(t, cfn.StatusFailed, response.Status)
		require.Contains(t, response.Reason, "connecting to database "+s.super.Database)
		require.Equal(t, cfn.StatusSuccess, cloudFormation.ask(t, lambda, cfn.RequestDelete).Status)
	})

	t.Run("DeadlineIsAnAnswerInTime", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		holder, err := pgx.ConnectConfig(t.Context(), s.super)
		require.NoError(t, err)
		defer func() { _ = holder.Close(t.Context()) }()
		_, err = holder.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
		require.NoError(t, err)

		// On a busy machine the deadline may come before the function has got as far as the lock.
		for wait, reason := time.Second, ""; !strings.Contains(reason, "waiting for the migration lock"); wait *= 2 {
			require.Less(t, wait, time.Minute, reason)
			response := cloudFormation.askWithin(t, lambda, cfn.RequestUpdate, reserve+wait)
			require.Equal(t, cfn.StatusFailed, response.Status)
			reason = response.Reason
			require.Contains(t, reason, "not done 15s before the function's timeout")
		}
	})

	t.Run("TimeoutTooShortIsSaid", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		lambda, cloudFormation := start(t, s.env), newPresigned(t, http.StatusOK)
		response := cloudFormation.askWithin(t, lambda, cfn.RequestCreate, reserve-time.Second)
		require.Equal(t, cfn.StatusFailed, response.Status)
		require.Contains(t, response.Reason, "raise the timeout")
	})

	t.Run("LongReasonIsCut", func(t *testing.T) {
		t.Parallel()
		lambda, cloudFormation := start(t, map[string]string{"DB_SSL": strings.Repeat("x", 5000)}), newPresigned(t, http.StatusOK)
		response := cloudFormation.ask(t, lambda, cfn.RequestCreate)
		require.Equal(t, cfn.StatusFailed, response.Status)
		require.Contains(t, response.Reason, "DB_SSL is")
	})

	t.Run("UnknownRequestFails", func(t *testing.T) {
		t.Parallel()
		lambda, cloudFormation := start(t, nil), newPresigned(t, http.StatusOK)
		response := cloudFormation.ask(t, lambda, "Describe")
		require.Equal(t, cfn.StatusFailed, response.Status)
		require.Contains(t, response.Reason, `RequestType "Describe" is unknown`)
	})

	// Lambda runs a failed asynchronous request again, which is the second chance of a lost answer. The presigned URL stays out of it.
	t.Run("AnswerNotTakenIsAnErrorWithoutTheURL", func(t *testing.T) {
		t.Parallel()
		refusing := newPresigned(t, http.StatusForbidden)
		for name, url := range map[string]string{
			"Refused":   refusing.url,
			"Nobody":    "http://127.0.0.1:1/?X-Amz-Signature=" + signature,
			"NotAnURL":  "http://127.0.0.1:1/%zz?X-Amz-Signature=" + signature,
			"NotString": "",
		} {
			lambda := start(t, nil)
			event := refusing.request(cfn.RequestDelete)
			event.ResponseURL = url
			var request any = event
			if name == "NotString" {
				request = map[string]any{"RequestType": "Delete", "ResponseURL": []string{signature}}
			}
			answer := lambda.invoke(t, request, labtest.Patience)
			require.True(t, answer.failed, name)
			require.NotContains(t, answer.body, signature, name)
			require.NotContains(t, lambda.output(), signature, name)
			if name != "NotString" {
				require.Contains(t, answer.body, "answering CloudFormation: ", name)
				require.Contains(t, lambda.output(), "answering CloudFormation: ", name)
			}
		}
	})
}

func TestReasonFits(t *testing.T) {
	t.Parallel()
	require.Equal(t, "short", fit("short"))
	for _, long := range []string{strings.Repeat("x", 5000), strings.Repeat("\x01", 5000), strings.Repeat("é\n", 5000), strings.Repeat("\xffa", 5000)} {
		cut := fit("what failed: " + long)
		encoded, err := json.Marshal(cut)
		require.NoError(t, err)
		require.LessOrEqual(t, len(encoded), maxReason)
		require.Greater(t, len(encoded), maxReason/2)
		require.True(t, strings.HasPrefix(cut, "what failed: "))
		require.True(t, strings.HasSuffix(cut, " ..."))
	}
}
