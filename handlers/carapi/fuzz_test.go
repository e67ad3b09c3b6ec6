package carapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
)

// FuzzCreateBody sends any body. The answer must be 201 with one car and its event, or a 4xx with
// neither.
func FuzzCreateBody(f *testing.F) {
	for _, body := range []string{
		bmw, "", "null", "[]", `{"make":1}`, bmw + "x", `{"make":"BMW","model":"i3","year":2022,"color":null}`,
		`{"make":"\ud83d","model":"\u0000","year":1e400,"color":[]}`, "{\"make\":\"\xff\"}", "\ufeff{}",
		`{"make":"` + strings.Repeat("🚗", 101) + `","model":" ","year":-0}`, `{"make":"a\\","model":"\ufffd\ud800","year":2022}`,
		`{"make":"\u0001\u001f\u2028","model":"'; DROP TABLE cars; --","year":2027,"make":"b"}`,
	} {
		f.Add([]byte(body))
	}
	b := setup(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		cars, events := b.count(t, "cars"), b.count(t, "outbox")
		w := b.do(t, "POST", "/cars", string(body))
		if w.Code == 201 {
			cars, events = cars+1, events+1
			require.Equal(t, 200, b.do(t, "GET", w.Header().Get("Location"), "").Code)
		} else {
			require.Contains(t, []int{400, 413}, w.Code, w.Body)
			require.NotEmpty(t, decode(t, w.Body.Bytes())["error"])
		}
		require.Equal(t, cars, b.count(t, "cars"))
		require.Equal(t, events, b.count(t, "outbox"))
	})
}

// FuzzQueryAndHeaders sends any query to the list of cars, and any header that the API reads with a change of a car. No request may be an
// error of the API's own, and a car has as many events as versions.
func FuzzQueryAndHeaders(f *testing.F) {
	const id = "0197f5b0-0000-7000-8000-000000000000"
	for _, seed := range [][4]string{
		{"limit=1&after=" + id, "key", `"1"`, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{"limit=100&limit=0&after=" + strings.ToUpper(id), "", "*", "00-00000000000000000000000000000000-0000000000000000-00"},
		{"after=%00&%zz", strings.Repeat("k", 256), `W/"1", "2"`, "\xff"}, {"limit=-1;after='; DROP TABLE cars; --", "\x00\r\n", `"`, "01-a-b-c-d"},
		{"limit=99999999999999999999&after={" + id + "}", "ключ", `"9223372036854775808"`, ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	b := setup(f)
	car := b.create(f, bmw)
	f.Fuzz(func(t *testing.T, query, key, ifMatch, traceparent string) {
		logged := b.logs.Len()
		list := httptest.NewRequestWithContext(t.Context(), "GET", "/cars", nil)
		list.URL.RawQuery = query
		change := httptest.NewRequestWithContext(t.Context(), "PATCH", car, strings.NewReader(`{"year":2001}`))
		change.Header = http.Header{
			"Content-Type": {"application/json"}, "Idempotency-Key": {key}, "If-Match": {ifMatch}, "Traceparent": {traceparent}, "X-Caller": {traceparent},
		}
		for _, r := range []*http.Request{list, change} {
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, r)
			require.Less(t, w.Code, 500, w.Body)
			decode(t, w.Body.Bytes())
		}
		requireLog(t, b.logs.From(logged))
		var version int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT version FROM cars").Scan(&version))
		require.Equal(t, version, b.count(t, "outbox"))
	})
}

// requireLog reports lines that are not JSON, and members that no line of ours has, such as a metric that a client wrote.
func requireLog(t *testing.T, logged []byte) {
	t.Helper()
	for line := range bytes.Lines(logged) {
		var members map[string]any
		require.NoError(t, json.Unmarshal(line, &members), "%q", line)
		require.NotContains(t, members, "_aws", "%q", line)
	}
}

var statusLine = regexp.MustCompile(`HTTP/1\.[01] ([0-9]{3}) [A-Z]`)

// FuzzHTTP sends any bytes over a connection to the server. Where one request ends and the next begins must be the same to the server and
// to the table, so that there are as many cars and events as answers that say so.
func FuzzHTTP(f *testing.F) {
	post := func(head, body string) string {
		return "POST /cars HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + head + "\r\n" + body
	}
	length := "Content-Length: " + strconv.Itoa(len(bmw)) + "\r\n"
	chunked := strconv.FormatInt(int64(len(bmw)), 16) + "\r\n" + bmw + "\r\n0\r\n\r\n"
	for _, seed := range []string{
		post(length, bmw) + post(length, bmw), post("Transfer-Encoding: chunked\r\n", chunked), post("Transfer-Encoding: chunked\r\n"+length, chunked),
		post("Content-Length: 0\r\n"+length, bmw), post("Content-Length: 1048577\r\n", bmw), post("Expect: 100-continue\r\n"+length, bmw),
		post("Transfer-Encoding : chunked\r\n"+length, bmw), post("X: a\r\n b\r\n"+length, bmw), post("X: a\n\rY: b\r\n"+length, bmw),
		"GET /cars?" + url.QueryEscape("limit=1\r\nX: 1") + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://b//cars HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HEAD /cars/%2e%2e HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a b\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	b := setup(f)
	server := carapi.NewServer(b.handler)
	server.ReadTimeout = 200 * time.Millisecond // of a body that never comes
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f, err)
	go func() { _ = server.Serve(listener) }()
	f.Cleanup(func() { _ = server.Close() })
	f.Fuzz(func(t *testing.T, sent []byte) {
		cars, events, logged := b.count(t, "cars"), b.count(t, "outbox"), b.logs.Len()
		conn, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		go func() { // the server may close before it has read all
			// The last request ends the connection. Closing our side instead would cancel what the server is at.
			_, _ = conn.Write(append(bytes.Clone(sent), "\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"...))
		}()
		answers, _ := io.ReadAll(conn) // a reset is an end, too
		created, unknown := 0, 0
		for _, status := range statusLine.FindAllSubmatch(answers, -1) {
			switch string(status[1]) {
			case "201":
				created++
			case "499": // its connection ended while it was worked on, by ReadTimeout: it may have been committed
				unknown++
			case "501", "505": // net/http's own, of a transfer encoding or a version that it does not have
			default:
				require.Less(t, string(status[1]), "500", "%q", answers)
			}
		}
		made := b.count(t, "cars") - cars
		require.GreaterOrEqual(t, made, created, "%q", answers)
		require.LessOrEqual(t, made, created+unknown, "%q", answers)
		require.Equal(t, events+made, b.count(t, "outbox"), "%q", answers)
		requireLog(t, b.logs.From(logged))
	})
}
