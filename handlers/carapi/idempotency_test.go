package carapi_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

const key = "Idempotency-Key"

func TestSameKeyAndRequestGetTheSameAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, body string
		headers      []string
		status       int
	}{
		"Create":        {"POST", bmw, nil, 201},
		"Update":        {"PATCH", `{"color":"<rot>"}`, nil, 200},
		"UpdateIfMatch": {"PATCH", `{"color":null}`, []string{"If-Match", `"1"`}, 200},
		"Delete":        {"DELETE", "", nil, 204},
		"DeleteIfMatch": {"DELETE", "", []string{"If-Match", `W/"1", "1"`}, 204},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			car, path := b.create(t, bmw), "/cars"
			if test.method != "POST" {
				path = car
			}
			headers := append([]string{key, uuid.NewString()}, test.headers...)
			first := b.do(t, test.method, path, test.body, headers...)
			require.Equal(t, test.status, first.Code, first.Body)
			require.Empty(t, first.Header().Get("Idempotency-Replayed"))
			events := b.count(t, "outbox")
			// Later changes of the car do not change the stored answer.
			if test.method != "DELETE" {
				require.Equal(t, 204, b.do(t, "DELETE", car, "").Code)
				events++
			}
			for range 3 {
				again := b.do(t, test.method, path, test.body, headers...)
				require.Equal(t, first.Code, again.Code)
				require.Equal(t, first.Body.String(), again.Body.String())
				want := first.Header().Clone()
				want.Set("Idempotency-Replayed", "true")
				want.Del("Traceresponse") // this request's trace has no event
				require.Equal(t, want, again.Header())
			}
			require.Equal(t, events, b.count(t, "outbox"), "no second event")
			lines := b.logs.lines(t)
			require.Equal(t, true, lines[len(lines)-1]["replayed"])
			require.NotContains(t, lines[len(lines)-1], "event_id")
		})
	}
}

func TestSameKeyAndOtherRequestAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	car, other := b.create(t, bmw), b.create(t, bmw)
	require.Equal(t, 201, b.do(t, "POST", "/cars", bmw, key, "k").Code)
	require.Equal(t, 200, b.do(t, "PATCH", car, `{"year":2023}`, key, "k", "If-Match", `"1"`).Code, "another route, another key")
	events := b.count(t, "outbox")
	for name, request := range map[string][]string{
		"OtherBody":    {"POST", "/cars", `{"make":"BMW","model":"i3","year":2022,"color":"blue "}`},
		"OtherNumber":  {"POST", "/cars", `{"make":"BMW","model":"i3","year":2022,"color":"blue","n":9007199254740993}`},
		"OtherChange":  {"PATCH", car, `{"year":2024}`, "If-Match", `"1"`},
		"OtherCar":     {"PATCH", other, `{"year":2023}`, "If-Match", `"1"`},
		"OtherIfMatch": {"PATCH", car, `{"year":2023}`, "If-Match", `"2"`},
		"NoIfMatch":    {"PATCH", car, `{"year":2023}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := b.do(t, request[0], request[1], request[2], append(request[3:], key, "k")...)
			require.Equal(t, 422, w.Code, w.Body)
			require.Empty(t, w.Header().Get("Idempotency-Replayed"))
			require.Contains(t, decode(t, w.Body.Bytes())["error"], "came with another request")
		})
	}
	require.Equal(t, events, b.count(t, "outbox"))
	require.Equal(t, 204, b.do(t, "DELETE", car, "", key, "k").Code)
	require.Equal(t, 422, b.do(t, "DELETE", other, "", key, "k").Code)
	require.Equal(t, 422, b.do(t, "DELETE", car, "x", key, "k").Code)
}

// A client that tries again may encode the same body in another way.
func TestEqualJSONIsTheSameRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.do(t, "POST", "/cars", `{"make":"Škoda","model":"<a>","year":2022,"color":"blue","n":[1.50,{"b":1,"a":2}]}`, key, "k")
	require.Equal(t, 201, first.Code, first.Body)
	for name, body := range map[string]string{
		"Order":   `{"n":[1.50,{"a":2,"b":1}],"color":"blue","year":2022,"model":"<a>","make":"Škoda"}`,
		"Spaces":  "\t{\n \"make\" : \"Škoda\", \"model\": \"<a>\",\r\n\"year\":2022 ,\"color\":\"blue\",\"n\":[ 1.50, {\"b\":1,\"a\":2} ] }\n",
		"Escapes": `{"make":"\u0160koda","model":"\u003ca>","year":2022,"color":"bl\u0075e","n":[1.50,{"b":1,"a":2}]}`,
	} {
		again := b.do(t, "POST", "/cars", body, key, "k")
		require.Equal(t, 201, again.Code, "%s: %s", name, again.Body)
		require.Equal(t, "true", again.Header().Get("Idempotency-Replayed"), name)
		require.Equal(t, first.Body.String(), again.Body.String(), name)
	}
	require.Equal(t, 1, b.count(t, "outbox"))
}

func TestKeysBelongToTheirCaller(t *testing.T) {
	t.Parallel()
	b := setup(t)
	locations := map[string]bool{}
	for _, caller := range []string{"", "ann", "bob", strings.Repeat("x", 5000)} {
		for range 2 {
			w := b.do(t, "POST", "/cars", bmw, key, "k", "X-Caller", caller)
			require.Equal(t, 201, w.Code, w.Body)
			locations[w.Header().Get("Location")] = true
		}
	}
	require.Len(t, locations, 4)
	require.Equal(t, 4, b.count(t, "outbox"))
}

func TestKeySyntax(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	b.expectOneCarAtEnd(t)
	for name, headers := range map[string][]string{
		"Empty":          {key, ""},
		"TooLong":        {key, strings.Repeat("k", 256)},
		"Space":          {key, "a b"},
		"Tab":            {key, "a\tb"},
		"Delete":         {key, "a\x7f"},
		"NotASCII":       {key, "schlüssel"},
		"NotUTF8":        {key, "k\xff"},
		"SentTwice":      {key, "a", key, "b"},
		"SentTwiceEqual": {key, "a", key, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, route := range [][2]string{{"POST", "/cars"}, {"PATCH", path}, {"DELETE", path}} {
				w := b.do(t, route[0], route[1], bmw, headers...)
				require.Equal(t, 400, w.Code, w.Body)
				require.Equal(t, map[string]any{key: "must be 1 to 255 visible ASCII characters, once"}, decode(t, w.Body.Bytes())["fields"])
			}
		})
	}
	t.Run("Taken", func(t *testing.T) {
		b := setup(t)
		for _, value := range []string{"!", strings.Repeat("~", 255), `"` + uuid.NewString() + `"`, "';DROP--", "a,b"} {
			require.Equal(t, 201, b.do(t, "POST", "/cars", bmw, key, value).Code)
			require.Equal(t, "true", b.do(t, "POST", "/cars", bmw, key, value).Header().Get("Idempotency-Replayed"))
		}
	})
}

// With the same key a refused request may be corrected, and a failed one tried again.
func TestOnlyMadeChangesAreKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	send := func(status int, method, path, body string, headers ...string) {
		t.Helper()
		w := b.do(t, method, path, body, append(headers, key, "k")...)
		require.Equal(t, status, w.Code, w.Body)
		require.Empty(t, w.Header().Get("Idempotency-Replayed"))
	}
	b.exec(t, refuseEvents)
	send(500, "POST", "/cars", bmw)
	b.exec(t, "DROP TRIGGER refuse ON outbox")
	send(400, "POST", "/cars", `{"make":"BMW"}`)
	send(201, "POST", "/cars", bmw)
	send(412, "PATCH", path, `{"year":2023}`, "If-Match", `"7"`)
	send(404, "PATCH", "/cars/"+uuid.NewString(), `{"year":2023}`)
	send(200, "PATCH", path, `{"year":2023}`, "If-Match", `"1"`)
	send(404, "DELETE", "/cars/"+uuid.NewString(), "")
	send(204, "DELETE", path, "")
	require.Equal(t, 3, b.count(t, "idempotency"))
}

func TestKeyIsOverAfterItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.do(t, "POST", "/cars", bmw, key, "k")
	const other = `{"make":"VW","model":"ID.3","year":2022}`
	require.Equal(t, 201, first.Code)
	require.Equal(t, 1, b.count(t, "idempotency WHERE expires_at BETWEEN now() + interval '23:59' AND now() + interval '24:00'"))
	b.exec(t, "UPDATE idempotency SET expires_at = now() + interval '1 minute'")
	require.Equal(t, 422, b.do(t, "POST", "/cars", other, key, "k").Code)

	b.exec(t, "UPDATE idempotency SET expires_at = now()")
	second := b.do(t, "POST", "/cars", other, key, "k")
	require.Equal(t, 201, second.Code, second.Body)
	require.NotEqual(t, first.Header().Get("Location"), second.Header().Get("Location"))
	again := b.do(t, "POST", "/cars", other, key, "k")
	require.Equal(t, "true", again.Header().Get("Idempotency-Replayed"))
	require.Equal(t, second.Body.String(), again.Body.String())
	require.Equal(t, 1, b.count(t, "idempotency"), "replaced")
}

func TestTwinInFlightIs409(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	lock, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Rollback(context.Background()) })
	_, err = lock.Exec(t.Context(), "SELECT FROM cars FOR UPDATE")
	require.NoError(t, err)
	send := func(value string) *httptest.ResponseRecorder {
		return b.do(t, "PATCH", path, `{"year":2023}`, key, value)
	}
	first := make(chan *httptest.ResponseRecorder, 1)
	go func() { first <- send("k") }()
	labtest.Eventually(t, "a request that waits for the lock", func() bool {
		return b.count(t, "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 1
	})

	for range 3 { // at once, with the car still locked
		w := send("k")
		require.Equal(t, 409, w.Code, w.Body)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Contains(t, decode(t, w.Body.Bytes())["error"], "try again")
	}
	require.NoError(t, lock.Rollback(t.Context()))
	answered := <-first
	require.Equal(t, 200, answered.Code)
	require.Equal(t, answered.Body.String(), send("k").Body.String())
	require.Len(t, b.events(t), 2)
}

func TestFiftyEqualRequestsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	answers := fifty(func() *httptest.ResponseRecorder { return b.do(t, "POST", "/cars", bmw, key, "k") })
	first := ""
	for _, w := range answers {
		require.Contains(t, []int{201, 409}, w.Code, w.Body)
		for w.Code == 409 {
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			w = b.do(t, "POST", "/cars", bmw, key, "k")
		}
		require.Equal(t, 201, w.Code)
		if first == "" {
			first = w.Body.String()
		}
		require.Equal(t, first, w.Body.String())
	}
	require.Equal(t, 1, b.count(t, "cars"))
	require.Equal(t, 1, b.count(t, "outbox"))
	require.Equal(t, 1, b.count(t, "idempotency"))
}

// fifty calls send fifty times at once.
func fifty[T any](send func() T) []T {
	answers := make([]T, 50)
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() {
			<-begin
			answers[i] = send()
		})
	}
	close(begin)
	group.Wait()
	return answers
}

// The server's transactions keep one snapshot by default. A request must see the answer of an equal
// request that has just ended all the same. A request that has waited for a car's lock must get the
// car as it is now.
func TestDefaultIsolationDoesNotMatter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = "repeatable read"', current_database()); END $$`)
	b.handler = newAPI(t, b.pool(t, nil), b.logs)
	path := b.create(t, bmw)
	for _, w := range fifty(func() *httptest.ResponseRecorder { return b.do(t, "POST", "/cars", bmw, key, "k") }) {
		require.Contains(t, []int{201, 409}, w.Code, w.Body)
	}
	for _, w := range fifty(func() *httptest.ResponseRecorder { return b.do(t, "PATCH", path, `{"year":2023}`) }) {
		require.Equal(t, 200, w.Code, w.Body)
	}
	require.Equal(t, 2+50, b.count(t, "outbox"))
}

// intruder stores the key from another session, without the lock. It does so after the API has looked
// for the key and before the API stores it.
type intruder struct {
	steal func()
	once  sync.Once
}

func (i *intruder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (i *intruder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (i *intruder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	i.once.Do(i.steal)
	return ctx
}
func (i *intruder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (i *intruder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestViolationIsRolledBackAndAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// The row that the intruder stores is one that the API has written.
	first := b.do(t, "POST", "/cars", bmw, key, "k")
	require.Equal(t, 201, first.Code)
	b.exec(t, "CREATE TABLE stolen AS SELECT * FROM idempotency; DELETE FROM idempotency")
	thief := &intruder{steal: func() { b.exec(t, "INSERT INTO idempotency SELECT * FROM stolen") }}
	b.handler = newAPI(t, b.pool(t, thief), b.logs)

	second := b.do(t, "POST", "/cars", bmw, key, "k")
	require.Equal(t, 201, second.Code, second.Body)
	require.Equal(t, "true", second.Header().Get("Idempotency-Replayed"))
	require.Equal(t, first.Body.String(), second.Body.String())
	require.Equal(t, 1, b.count(t, "cars"))
	require.Equal(t, 1, b.count(t, "outbox"))
}
