package migrate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
)

// api is the real API on a database, for writers beside a migration.
type api struct{ handler http.Handler }

func newAPI(t *testing.T, pool *pgxpool.Pool) api {
	t.Helper()
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return api{handler}
}

func (a api) send(ctx context.Context, method, path, body string) (answer []byte, err error) {
	request := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	a.handler.ServeHTTP(recorder, request)
	if recorder.Code >= 300 {
		return nil, fmt.Errorf("%s %s is answered with %d %s", method, path, recorder.Code, recorder.Body)
	}
	return recorder.Body.Bytes(), nil
}

// create makes a car and returns its id.
func (a api) create(ctx context.Context) (id string, err error) {
	answer, err := a.send(ctx, http.MethodPost, "/cars", `{"make":"VW","model":"Golf","year":2020}`)
	if err != nil {
		return "", err
	}
	var created struct{ Car struct{ ID string } }
	err = json.Unmarshal(answer, &created)
	return created.Car.ID, err
}

func (a api) change(ctx context.Context, id string) error {
	_, err := a.send(ctx, http.MethodPatch, "/cars/"+id, `{"color":"red"}`)
	return err
}
