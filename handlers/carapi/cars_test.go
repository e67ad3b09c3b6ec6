package carapi_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/lab/labtest"
)

func TestCreateCar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long := strings.Repeat("ü", 100)
	for name, test := range map[string]struct{ body, car string }{
		"AllFields":                {bmw, `{"make":"BMW","model":"i3","year":2022,"color":"blue"}`},
		"ColorAbsentIsNull":        {`{"make":"BMW","model":"i3","year":2022}`, `{"make":"BMW","model":"i3","year":2022,"color":null}`},
		"ColorNullIsNull":          {`{"make":"BMW","model":"i3","year":2022,"color":null}`, `{"make":"BMW","model":"i3","year":2022,"color":null}`},
		"UnknownFieldsAreIgnored":  {`{"make":"BMW","model":"i3","year":2022,"Color":"red","id":7,"x":{"y":["\u0000"]}}`, `{"make":"BMW","model":"i3","year":2022,"color":null}`},
		"SpacesAreTrimmed":         {`{"make":" BMW\n","model":"\ti 3\u00a0","year":2022,"color":" dark blue "}`, `{"make":"BMW","model":"i 3","year":2022,"color":"dark blue"}`},
		"SpaceAroundTheBody":       {"\r\n " + bmw + "\t\n", `{"make":"BMW","model":"i3","year":2022,"color":"blue"}`},
		"LastOfDuplicatesCounts":   {`{"make":1,"make":"BMW","model":"i3","year":2022}`, `{"make":"BMW","model":"i3","year":2022,"color":null}`},
		"LimitsCountCharacters":    {`{"make":"` + long + `","model":"` + long + `","year":2022,"color":"` + long[:100] + `"}`, `{"make":"` + long + `","model":"` + long + `","year":2022,"color":"` + long[:100] + `"}`},
		"SpacesDoNotCount":         {`{"make":"` + long + `  ","model":"i3","year":2022}`, `{"make":"` + long + `","model":"i3","year":2022,"color":null}`},
		"FirstYear":                {`{"make":"Benz","model":"1","year":1886}`, `{"make":"Benz","model":"1","year":1886,"color":null}`},
		"NextYear":                 {`{"make":"Benz","model":"1","year":2027}`, `{"make":"Benz","model":"1","year":2027,"color":null}`},
		"MarkupIsOnlyText":         {`{"make":"<b>&","model":"'; DROP TABLE cars; --","year":2022}`, `{"make":"<b>&","model":"'; DROP TABLE cars; --","year":2022,"color":null}`},
		"SurrogatePairIsCharacter": {`{"make":"\ud83d\ude97","model":"\ufffd","year":2022}`, `{"make":"🚗","model":"�","year":2022,"color":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := b.do(t, "POST", "/cars", test.body)
			require.Equal(t, 201, w.Code, w.Body)
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			answer := decode(t, w.Body.Bytes())
			require.Len(t, answer, 2)
			require.Equal(t, "Car created successfully", answer["message"])
			car := answer["car"].(map[string]any)
			id := car["id"].(string)
			require.NoError(t, uuid.Validate(id))
			require.Equal(t, "/cars/"+id, w.Header().Get("Location"))
			require.Equal(t, clockJSON, car["createdAt"])

			got := b.do(t, "GET", w.Header().Get("Location"), "")
			require.Equal(t, 200, got.Code)
			require.Equal(t, map[string]any{"car": car}, decode(t, got.Body.Bytes()), "GET shows what POST answered")

			delete(car, "id")
			delete(car, "createdAt")
			require.Equal(t, decode(t, []byte(test.car)), car)
			require.NotContains(t, w.Body.String(), `\u00`, "no HTML escapes")
		})
	}
}

func TestPatchCar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, test := range map[string]struct{ body, car string }{
		"One":                {`{"year":2023}`, `{"make":"BMW","model":"i3","year":2023,"color":"blue"}`},
		"All":                {`{"make":"VW","model":"ID.3","year":2024,"color":"red"}`, `{"make":"VW","model":"ID.3","year":2024,"color":"red"}`},
		"ColorToNull":        {`{"color":null}`, `{"make":"BMW","model":"i3","year":2022,"color":null}`},
		"NothingNewIsEvent":  {`{"make":"BMW"}`, `{"make":"BMW","model":"i3","year":2022,"color":"blue"}`},
		"UnknownIsIgnored":   {`{"model":"iX","owner":"me"}`, `{"make":"BMW","model":"iX","year":2022,"color":"blue"}`},
		"SpacesAreTrimmed":   {`{"make":" VW "}`, `{"make":"VW","model":"i3","year":2022,"color":"blue"}`},
		"UnsentFieldsRemain": {`{"color":"red"}`, `{"make":"BMW","model":"i3","year":2022,"color":"red"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := b.create(t, bmw)
			w := b.do(t, "PATCH", path, test.body)
			require.Equal(t, 200, w.Code, w.Body)
			want := decode(t, []byte(test.car))
			want["id"], want["createdAt"] = strings.TrimPrefix(path, "/cars/"), clockJSON
			require.Equal(t, map[string]any{"car": want}, decode(t, w.Body.Bytes()))
			got := b.do(t, "GET", path, "")
			require.JSONEq(t, w.Body.String(), got.Body.String())

			var version int64
			require.NoError(t, b.Pool.QueryRow(t.Context(),
				"SELECT max(aggregate_version) FROM outbox WHERE aggregate_id = $1", want["id"]).Scan(&version))
			require.EqualValues(t, 2, version)
		})
	}
}

func TestUnknownCarIs404(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	for name, path := range map[string]string{
		"Unknown":     "/cars/" + uuid.NewString(),
		"NotAUUID":    "/cars/7",
		"SQL":         "/cars/'%20OR%20true--",
		"BadUTF8":     "/cars/%ff%00",
		"Braces":      "/cars/%7B" + path[6:] + "%7D",
		"URN":         "/cars/urn:uuid:" + path[6:],
		"NoHyphens":   "/cars/" + strings.ReplaceAll(path[6:], "-", ""),
		"Empty":       "/cars/",
		"Below":       path + "/wheels",
		"OtherPath":   "/trucks",
		"Root":        "/",
		"CaseMatters": "/Cars",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{"GET", "PATCH", "DELETE"} {
				w := b.do(t, method, path, `{"year":2023}`)
				require.Equal(t, 404, w.Code, w.Body)
				require.JSONEq(t, `{"error":"not found"}`, w.Body.String())
			}
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for path, allow := range map[string]string{
		"/cars":         "GET, HEAD, POST, OPTIONS",
		"/cars/{id}":    "GET, HEAD, PATCH, DELETE, OPTIONS",
		"/healthz":      "GET, HEAD, OPTIONS",
		"/openapi.json": "GET, HEAD, OPTIONS",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "TRACE", "FOO"} {
			t.Run(method+path, func(t *testing.T) {
				t.Parallel()
				w := b.do(t, method, strings.Replace(path, "/cars/{id}", b.create(t, bmw), 1), bmw)
				if strings.Contains(allow, method) {
					require.Contains(t, []int{200, 201, 204}, w.Code)
					return
				}
				require.Equal(t, 405, w.Code)
				require.Equal(t, allow, w.Header().Get("Allow"))
				require.JSONEq(t, `{"error":"method not allowed"}`, w.Body.String())
			})
		}
		t.Run("PreflightOf"+path, func(t *testing.T) {
			t.Parallel()
			w := b.do(t, "OPTIONS", path, "", "Origin", "https://example.com", "Access-Control-Request-Method", "POST")
			require.Equal(t, 200, w.Code)
			require.Empty(t, w.Body.String())
			require.Equal(t, allow, w.Header().Get("Allow"))
		})
	}
}

func TestEveryAnswerHasCORSHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, w := range map[string]http.Header{
		"Created":   b.do(t, "POST", "/cars", bmw).Header(),
		"Preflight": b.do(t, "OPTIONS", "/cars", "").Header(),
		"Refused":   b.do(t, "POST", "/cars", "x").Header(),
		"NotFound":  b.do(t, "GET", "/x", "").Header(),
		"Method":    b.do(t, "PUT", "/cars", "").Header(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, "*", w.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "Content-Type, Idempotency-Key, If-Match, Traceparent", w.Get("Access-Control-Allow-Headers"))
			require.Equal(t, "GET, POST, PATCH, DELETE, OPTIONS", w.Get("Access-Control-Allow-Methods"))
			require.Equal(t, "ETag, Idempotency-Replayed, Location, Retry-After, Traceresponse", w.Get("Access-Control-Expose-Headers"))
			require.Equal(t, "application/json", w.Get("Content-Type"))
		})
	}
}

// Without CORSOrigin no page of another origin may read an answer, and a preflight allows it nothing.
func TestCORSIsForOneOriginOrNone(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"", "https://cars.example"} {
		api, err := carapi.New(carapi.Config{Pool: brokenPool{io.EOF}, Logger: slog.New(slog.DiscardHandler), CORSOrigin: origin})
		require.NoError(t, err)
		for _, request := range [][2]string{{"GET", "/healthz"}, {"GET", "/cars"}, {"OPTIONS", "/cars"}, {"GET", "/x"}} {
			header := do(t, api, request[0], request[1], "", "Origin", "https://evil.example").Header()
			require.Equal(t, origin, header.Get("Access-Control-Allow-Origin"), request)
			require.Equal(t, origin != "", header.Get("Access-Control-Allow-Methods") != "", request)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	b := setup(t)
	labtest.Eventually(t, "a database that answers within the five seconds that it has", func() bool {
		w := b.do(t, "GET", "/healthz", "")
		return w.Code == 200 && strings.TrimSpace(w.Body.String()) == `{"status":"ok"}`
	})

	t.Run("DatabaseAway", func(t *testing.T) {
		t.Parallel()
		pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none?sslmode=disable")
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		w := do(t, newAPI(t, pool, &logBuffer{}), "GET", "/healthz", "")
		require.Equal(t, 503, w.Code)
		require.JSONEq(t, `{"error":"the database does not answer"}`, w.Body.String())
	})
	t.Run("SessionCut", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		config, err := pgxpool.ParseConfig(b.URL + "&pool_max_conns=1")
		require.NoError(t, err)
		config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		handler := newAPI(t, pool, &logBuffer{})
		healthy := func() bool { return do(t, handler, "GET", "/healthz", "").Code == 200 } // which the database has five seconds for
		labtest.Eventually(t, "a database that answers", healthy)
		b.exec(t, `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		require.Equal(t, 503, do(t, handler, "GET", "/healthz", "").Code, "asks, rather than trusts an open connection")
		labtest.Eventually(t, "a database that answers again", healthy)
	})
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := carapi.New(carapi.Config{Logger: discard})
	require.ErrorContains(t, err, "Config.Pool")
	_, err = carapi.New(carapi.Config{Pool: brokenPool{err: errors.New("x")}})
	require.ErrorContains(t, err, "Config.Logger")
	_, err = carapi.New(carapi.Config{Pool: brokenPool{err: errors.New("x")}, Logger: discard, KeepKeys: time.Second})
	require.ErrorContains(t, err, "Config.KeepKeys is 1s")
}
