package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgtest"
)

// FuzzEvent gives the function any JSON that Lambda may. It answers each event that is a request, without an error of its own, and with
// one log line of known members.
func FuzzEvent(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(`{"resource":"/cars","path":"/v1//cars","httpMethod":"GET","multiValueQueryStringParameters":{"limit":["1\n{}"],"after":null}}`))
	f.Add([]byte(`{"resource":"/{proxy+}","path":"/%zz","httpMethod":"P\n","isBase64Encoded":true,"body":"%","requestContext":{"path":"/a","authorizer":{"claims":1}}}`))
	db := pgtest.New(f)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	api, err := carapi.New(carapi.Config{Pool: db.Pool, Logger: logger, Caller: caller, CORSOrigin: "*"})
	require.NoError(f, err)
	g := &gateway{api, logger}
	count := func(t *testing.T) (cars, written int) {
		require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM cars), (SELECT count(*) FROM outbox)").Scan(&cars, &written))
		return cars, written
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var event events.APIGatewayProxyRequest
		if json.Unmarshal(data, &event) != nil {
			t.Skip() // aws-lambda-go refuses it
		}
		log.Reset()
		cars, written := count(t)
		answer, err := g.handle(t.Context(), event)
		var line map[string]any
		require.NoError(t, json.Unmarshal(log.Bytes(), &line), "%q", log.String())
		for member := range line {
			require.Contains(t, members, member)
		}
		if errors.Is(err, errShape) {
			return
		}
		require.NoError(t, err)
		require.Less(t, answer.StatusCode, 500, answer.Body)
		if answer.StatusCode == 201 {
			cars, written = cars+1, written+1
		}
		nowCars, nowWritten := count(t)
		require.Equal(t, [2]int{cars, written}, [2]int{nowCars, nowWritten}, answer.Body)
		_, err = json.Marshal(answer)
		require.NoError(t, err)
	})
}
