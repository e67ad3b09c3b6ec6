package infra_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// timeout is what a function is told. It is not waited for, and more than a busy machine needs.
const timeout = labtest.Patience

// database returns the DB_* variables for a database on this machine.
func database(t *testing.T, url, secret string) (map[string]string, *pgx.ConnConfig) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	return map[string]string{
		"DB_HOST": config.Host, "DB_PORT": fmt.Sprint(config.Port), "DB_NAME": config.Database, "DB_USER": config.User,
		"DB_SECRET_ARN": secret, "DB_SSL": "false",
	}, config
}

func login(user, password string) string {
	return fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)
}

func TestCreateCarZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	db := pgtest.New(t)
	variables, config := database(t, db.URL, "api")
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"api": login(config.User, config.Password)}})
	for _, name := range []string{"IDEMPOTENCY_HOURS", "CORS_ORIGIN"} {
		variables[name] = s.Resources["CreateCarLambdaFunction"].get(t, "Environment", "Variables", name).(string)
	}
	f := start(t, s, "createCar", variables, map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint})

	post := recorded(t, "post-cars.json")
	created := send(t, f, post)
	require.Equal(t, 201, created.StatusCode, created.Body)
	location := created.MultiValueHeaders["Location"][0]
	require.Regexp(t, `^/dev/cars/[0-9a-f-]{36}$`, location)
	var traceparent string // came in multiValueHeaders only
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT traceparent FROM outbox").Scan(&traceparent))
	require.Equal(t, post.MultiValueHeaders["traceparent"][0], traceparent)

	encoded := post
	encoded.Body, encoded.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte(post.Body)), true
	encoded.MultiValueHeaders = maps.Clone(post.MultiValueHeaders)
	encoded.MultiValueHeaders["idempotency-key"] = []string{"zip"}
	second := send(t, f, encoded)
	require.Equal(t, 201, second.StatusCode)
	again := send(t, f, encoded)
	require.Equal(t, []string{"true"}, again.MultiValueHeaders["Idempotency-Replayed"])
	require.Equal(t, second.MultiValueHeaders["Location"], again.MultiValueHeaders["Location"])

	missing := post
	missing.Body = "" // encoding/json reads null as ""
	refused := send(t, f, missing)
	require.Equal(t, 400, refused.StatusCode)
	require.Equal(t, []string{"*"}, refused.MultiValueHeaders["Access-Control-Allow-Origin"])

	get := recorded(t, "get-car.json")
	get.Path = strings.TrimPrefix(location, "/dev")
	found := send(t, f, get)
	require.Equal(t, 200, found.StatusCode)
	require.Contains(t, found.Body, "Škoda")
	get.Path = "/healthz"
	require.Equal(t, 200, send(t, f, get).StatusCode)
	get.Path = "/trucks"
	require.Equal(t, 404, send(t, f, get).StatusCode)
	var cars int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM cars").Scan(&cars))
	require.Equal(t, 2, cars)
}

// recorded is an event of API Gateway's REST API, payload version 1.0.
func recorded(t *testing.T, file string) (event events.APIGatewayProxyRequest) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "handlers", "carapi", "lambda", "testdata", file))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &event))
	return event
}

func send(t *testing.T, f *lambdarun.Function, event events.APIGatewayProxyRequest) (response events.APIGatewayProxyResponse) {
	t.Helper()
	a := invoke(t, f, event, timeout)
	require.False(t, a.Failed, "%s", a.Body)
	require.NoError(t, json.Unmarshal(a.Body, &response))
	return response
}

func TestCdcConsumerZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	published := make(chan awslocal.BusEvent, 10)
	server, cloud := awstest.Start(t, awslocal.Config{
		Buses: []string{"bus"}, Queues: []string{"failures"}, OnEvent: func(e awslocal.BusEvent) { published <- e },
	})
	queue := *cloud.BaseEndpoint + "/000000000000/failures"
	f := start(t, s, "cdcConsumer", map[string]string{"EVENT_BUS_NAME": "bus", "FAILURE_QUEUE_URL": queue},
		map[string]string{"AWS_ENDPOINT_URL": *cloud.BaseEndpoint})

	insert, err := os.ReadFile("../outbox/testdata/insert.json")
	require.NoError(t, err)
	batch := func(records ...[]byte) (event events.KinesisEvent) {
		for i, data := range records {
			event.Records = append(event.Records, events.KinesisEventRecord{
				EventID: fmt.Sprintf("shardId-000000000000:%d", i), EventSource: "aws:kinesis",
				EventSourceArn: "arn:aws:kinesis:us-east-1:000000000000:stream/outbox", AwsRegion: "us-east-1",
				Kinesis: events.KinesisRecord{
					Data: data, PartitionKey: "car", SequenceNumber: fmt.Sprint(100 + i), KinesisSchemaVersion: "1.0",
					ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: time.Now()},
				},
			})
		}
		return event
	}
	control := []byte(`{"control":{},"metadata":{"record-type":"control","operation":"create-table","schema-name":"public","table-name":"outbox"}}`)

	a := invoke(t, f, batch(control, insert, []byte("not JSON")), timeout)
	require.False(t, a.Failed, "%s", a.Body)
	require.JSONEq(t, `{"batchItemFailures":null}`, string(a.Body), "published, skipped or parked: all of it")
	event := <-published
	require.Equal(t, "outbox.car", event.Source)
	require.Equal(t, "CarCreated", event.DetailType)
	messages, err := sqs.NewFromConfig(cloud).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(queue)})
	require.NoError(t, err)
	require.Len(t, messages.Messages, 1)
	require.Contains(t, *messages.Messages[0].Body, `"sequenceNumber":"102"`)

	// The bus is down until the time is nearly over, so Lambda has to deliver again from the first
	// record that failed.
	server.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Code: "InternalException", Status: 500})
	a = invoke(t, f, batch(control, insert), 3*time.Second)
	require.False(t, a.Failed, "%s", a.Body)
	require.JSONEq(t, `{"batchItemFailures":[{"itemIdentifier":"101"}]}`, string(a.Body))
}

func TestRetentionZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	db := pgtest.New(t)
	_, err := db.Pool.Exec(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		SELECT gen_random_uuid(), 'Car', 'a', n, 'CarUpdated', '{}', now() - make_interval(days => 14 + n) FROM generate_series(1, 3) AS n`)
	require.NoError(t, err)
	_, err = db.Pool.Exec(t.Context(), `INSERT INTO idempotency (route, caller_hash, key, request_hash, status, location, etag, body, expires_at)
		SELECT 'POST /cars', sha256('ann'), n::text, sha256('x'), 201, '', '', '', now() + make_interval(hours => n) FROM generate_series(-2, 2) AS n`)
	require.NoError(t, err)
	rows := func() (n int) {
		require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&n))
		return n
	}
	variables, config := database(t, db.URL, "retention")
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"retention": login(config.User, config.Password)}})
	slot := "zip_" + strings.ReplaceAll(uuid.NewString(), "-", "") // all databases of the server share the slots
	for name, value := range s.Resources["RetentionLambdaFunction"].get(t, "Environment", "Variables").(map[string]any) {
		if value, literal := value.(string); literal && !strings.HasPrefix(name, "DB_") {
			variables[name] = value // as it is deployed
		}
	}
	variables["SLOT_NAME"] = slot
	endpoint := map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint}
	schedule := json.RawMessage(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`)

	off := invoke(t, start(t, s, "retention", variables, endpoint), schedule, timeout)
	require.False(t, off.Failed, "%s", off.Body)
	require.JSONEq(t, `{"enabled":false,"keys":3,"deleted":0,"oldestKept":null,"left":false}`, string(off.Body))

	variables["RETENTION_ENABLED"] = "true"
	f := start(t, s, "retention", variables, endpoint)
	refused := invoke(t, f, schedule, timeout)
	require.True(t, refused.Failed, "%s", refused.Body)
	require.Contains(t, string(refused.Body), "replication slot "+slot+" does not exist")
	require.Equal(t, 3, rows())

	_, err = db.Pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	require.NoError(t, err)
	reader, stop := context.WithCancel(t.Context())
	read := make(chan struct{})
	go func() { // as a relay does
		defer close(read)
		for reader.Err() == nil {
			_, _ = db.Pool.Exec(reader, "SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", slot)
		}
	}()
	done := invoke(t, f, schedule, timeout)
	stop()
	<-read
	require.False(t, done.Failed, "%s", done.Body)
	require.Contains(t, string(done.Body), `{"enabled":true,"keys":0,"deleted":3,`)
	require.Zero(t, rows())
}

func TestCarStatsZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	db := pgtest.New(t)
	variables, config := database(t, db.URL, "carstats")
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"carstats": login(config.User, config.Password)}})
	variables["IN_ORDER"] = "false"
	f := start(t, s, "carStats", variables, map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint})
	event, err := os.ReadFile("../inbox/testdata/envelope.json")
	require.NoError(t, err)
	good := regexp.MustCompile(`"eventData": \{[^}]*\}`).ReplaceAllLiteralString(string(event), `"eventData": `+domain.Sample(0))
	kind, err := domain.Kind([]byte(domain.Sample(0)))
	require.NoError(t, err)
	a := invoke(t, f, events.SQSEvent{Records: []events.SQSMessage{
		{MessageId: "1", Body: good}, {MessageId: "2", Body: "poison"}, {MessageId: "3", Body: good},
	}}, timeout)
	require.False(t, a.Failed, "%s", a.Body)
	require.JSONEq(t, `{"batchItemFailures":[{"itemIdentifier":"2"}]}`, string(a.Body))
	var counted string
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT concat_ws(' ', kind, cars, changes) FROM ("+domain.Totals+") AS t").Scan(&counted))
	require.Equal(t, kind+" 1 1", counted)

	// With carStatsInOrder, the schedule's event makes the function ask for missing versions.
	variables["IN_ORDER"] = "true"
	f = start(t, s, "carStats", variables, map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint})
	a = invoke(t, f, json.RawMessage(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`), timeout)
	require.False(t, a.Failed, "%s", a.Body)
}

func TestCanaryZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	db := pgtest.New(t)
	variables, config := database(t, db.URL, "canary")
	_, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{"canary": login(config.User, config.Password)}})
	f := start(t, s, "canary", variables, map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint})
	a := invoke(t, f, json.RawMessage(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`), timeout)
	require.False(t, a.Failed, "%s", a.Body)
	var id string
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT id::text FROM outbox WHERE aggregate_type = 'Canary'").Scan(&id))
	require.JSONEq(t, `{"eventId":"`+id+`"}`, string(a.Body))
}

func TestMigrateZip(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	url := pgtest.NewEmpty(t)
	variables, config := database(t, url, "master")
	id := strings.ReplaceAll(uuid.NewString(), "-", "") // all databases of the server share the roles
	api, dms, retention, stats, canary := "api_"+id, "dms_"+id, "retention_"+id, "carstats_"+id, "canary_"+id
	server, cloud := awstest.Start(t, awslocal.Config{Secrets: map[string]string{
		"master": login(config.User, config.Password), "api": login(api, "apiPassword1"), "dms": login(dms, "dmsPassword1"),
		"retention": login(retention, "retentionPassword1"), "carstats": login(stats, "carstatsPassword1"), "canary": login(canary, "canaryPassword1"),
	}})
	variables["API_SECRET_ARN"], variables["DMS_SECRET_ARN"], variables["RETENTION_SECRET_ARN"] = "api", "dms", "retention"
	variables["CARSTATS_SECRET_ARN"], variables["CANARY_SECRET_ARN"] = "carstats", "canary"
	t.Cleanup(func() { dropRoles(t, url, api, dms, retention, stats, canary) })
	f := start(t, s, "migrate", variables, map[string]string{"AWS_ENDPOINT_URL_SECRETS_MANAGER": *cloud.BaseEndpoint})

	type response struct {
		Status, Reason, PhysicalResourceId, RequestId string //nolint:revive // CloudFormation's names
		Data                                          map[string]string
	}
	sent := make(chan response, 1)
	bucket := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body response
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			body.Reason = err.Error()
		}
		sent <- body
	}))
	t.Cleanup(bucket.Close)
	request := func(kind, physical string) map[string]any {
		event := map[string]any{
			"RequestType": kind, "RequestId": "request-" + kind, "ResponseURL": bucket.URL + "/?Signature=x", "StackId": "arn:aws:cloudformation:us-east-1:000000000000:stack/s/1",
			"ResourceType": "Custom::DatabaseMigration", "LogicalResourceId": "DatabaseMigration",
			"ResourceProperties": map[string]any{"ServiceToken": "arn", "MigrationsHash": hashOfMigrations(t)},
		}
		if physical != "" {
			event["PhysicalResourceId"] = physical
		}
		return event
	}
	ask := func(kind, physical string) response {
		a := invoke(t, f, request(kind, physical), timeout)
		require.False(t, a.Failed, "%s", a.Body)
		answered := <-sent
		require.Equal(t, "request-"+kind, answered.RequestId)
		return answered
	}

	created := ask("Create", "")
	require.Equal(t, "SUCCESS", created.Status, created.Reason)
	require.NotEmpty(t, created.Data["Version"])
	for user, password := range map[string]string{api: "apiPassword1", dms: "dmsPassword1", retention: "retentionPassword1", stats: "carstatsPassword1"} {
		as := config.Copy()
		as.User, as.Password = user, password
		conn, err := pgx.ConnectConfig(t.Context(), as)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}

	updated := ask("Update", created.PhysicalResourceId)
	require.Equal(t, "SUCCESS", updated.Status, updated.Reason)
	require.Equal(t, created.PhysicalResourceId, updated.PhysicalResourceId, "another id would be deleted")

	server.SetSecret("api", "{}")
	failed := ask("Update", created.PhysicalResourceId)
	require.Equal(t, "FAILED", failed.Status)
	require.Contains(t, failed.Reason, "secret api")

	deleted := ask("Delete", created.PhysicalResourceId)
	require.Equal(t, "SUCCESS", deleted.Status, "of a stack that is broken, too: %s", deleted.Reason)

	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	var rows int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&rows), "Delete leaves the tables alone")
}

func dropRoles(t *testing.T, url string, roles ...string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	for _, role := range roles {
		_, err := conn.Exec(ctx, "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	}
}
