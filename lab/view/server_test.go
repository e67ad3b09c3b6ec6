package view

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// asked is an answer of the view.
type asked struct {
	status int
	header http.Header
	body   string
}

// ask sends a request as a program of this machine does. header has names and values in turn.
func (v *View) ask(t *testing.T, method, path, body string, header ...string) asked {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, v.URL()+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		} else {
			request.Header.Set(header[i], header[i+1])
		}
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return asked{response.StatusCode, response.Header, string(content)}
}

// command is ask with the page's token.
func (v *View) command(t *testing.T, method, path, body string) asked {
	t.Helper()
	return v.ask(t, method, path, body, "X-View-Token", v.token)
}

func TestServer(t *testing.T) {
	t.Parallel()
	v := newRig(t, t.TempDir())
	_, port, err := net.SplitHostPort(strings.TrimPrefix(v.URL(), "http://"))
	require.NoError(t, err)
	car := domain.Named("<img src=x onerror=alert(1)>")

	t.Run("ListensOnThisMachineOnly", func(t *testing.T) {
		t.Parallel()
		require.Regexp(t, `^http://127\.0\.0\.1:\d+$`, v.URL())
		addresses, err := net.InterfaceAddrs()
		require.NoError(t, err)
		for _, address := range addresses {
			if ip, _, err := net.ParseCIDR(address.String()); err == nil && ip.To4() != nil && !ip.IsLoopback() {
				_, err := net.Dial("tcp", net.JoinHostPort(ip.String(), port))
				require.Error(t, err, "%s is not this machine alone", ip)
			}
		}
	})
	t.Run("StrangersAreRefused", func(t *testing.T) {
		t.Parallel()
		own := "http://127.0.0.1:" + port
		for name, header := range map[string][]string{
			"ReboundName":     {"Host", "rebound.example:" + port},
			"NameWithoutPort": {"Host", "127.0.0.1"},
			"OtherPort":       {"Host", "127.0.0.1:1"},
			"AllAddresses":    {"Host", "0.0.0.0:" + port},
			"Suffix":          {"Host", "127.0.0.1:" + port + ".example"},
			"ForeignOrigin":   {"Origin", "https://example.com"},
			"OtherPortOrigin": {"Origin", "http://127.0.0.1:1"},
			"OtherNameOrigin": {"Origin", "http://localhost:" + port},
			"HTTPSOrigin":     {"Origin", "https://127.0.0.1:" + port},
			"NullOrigin":      {"Origin", "null"},
			"CrossSite":       {"Sec-Fetch-Site", "cross-site"},
			"OtherPortPage":   {"Sec-Fetch-Site", "same-site"},
		} {
			for _, target := range []struct{ method, path string }{
				{"GET", "/"}, {"GET", "/page/view.css"}, {"GET", "/meta"}, {"GET", "/contracts"}, {"GET", "/live"}, {"GET", "/events/" + uuid.NewString()}, {"GET", "/events/" + uuid.NewString() + "/where"}, {"POST", "/cars"},
				{"POST", "/switches/kill-relay"}, {"POST", "/load"}, {"POST", "/relay/stop"}, {"POST", "/tour/1"}, {"DELETE", "/tour"}, {"OPTIONS", "/cars"}, {"HEAD", "/"},
			} {
				got := v.ask(t, target.method, target.path, `{"on":true,"rate":500}`, append(header, "X-View-Token", v.token)...)
				require.Equal(t, http.StatusForbidden, got.status, "%s: %s %s", name, target.method, target.path)
				require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))
				require.NotContains(t, got.body, v.token)
				if target.method != "HEAD" {
					require.Contains(t, got.body, "refused: ", name)
				}
				require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
			}
		}
		for _, header := range [][]string{
			{}, {"Host", "localhost:" + port}, {"Host", "LocalHost:" + port}, {"Origin", own}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"},
			{"Host", "localhost:" + port, "Origin", "http://localhost:" + port},
		} {
			require.Equal(t, http.StatusOK, v.ask(t, "GET", "/meta", "", header...).status, "%v", header)
		}
		require.Zero(t, v.load.rate.Load())
	})
	t.Run("ALinkElsewhereOpensThePage", func(t *testing.T) {
		t.Parallel()
		link := func(dest string) []string {
			return []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", dest}
		}
		require.Equal(t, http.StatusOK, v.ask(t, "GET", "/", "", link("document")...).status)
		require.Equal(t, http.StatusOK, v.ask(t, "GET", "/?event=x", "", link("document")...).status)
		require.Equal(t, http.StatusForbidden, v.ask(t, "GET", "/", "", link("iframe")...).status)
		require.Equal(t, http.StatusForbidden, v.ask(t, "GET", "/live", "", link("document")...).status)
		require.Equal(t, http.StatusForbidden, v.ask(t, "GET", "/", "", append(link("document"), "Host", "rebound.example:"+port)...).status)
		require.Equal(t, http.StatusForbidden, v.ask(t, "GET", "/", "", append(link("document"), "Origin", "https://example.com")...).status)
	})
	t.Run("CommandsNeedTheToken", func(t *testing.T) {
		t.Parallel()
		for _, target := range []struct{ method, path string }{
			{"POST", "/cars"}, {"POST", "/switches/bus-down"}, {"POST", "/load"}, {"POST", "/relay/stop"}, {"POST", "/tour/1"}, {"DELETE", "/tour"}, {"PUT", "/cars"}, {"OPTIONS", "/load"},
		} {
			for _, token := range []string{"", "wrong", v.token + "x", v.token[1:], strings.ToLower(v.token)} {
				got := v.ask(t, target.method, target.path, `{"on":true,"rate":7}`, "X-View-Token", token)
				require.Equal(t, http.StatusForbidden, got.status, "%s %s", target.method, target.path)
				require.Contains(t, got.body, "X-View-Token")
			}
		}
		require.Zero(t, v.load.rate.Load())
		require.Empty(t, v.path.AWS.Faults().List())
		front := v.ask(t, "GET", "/", "").body
		require.Contains(t, front, `<meta name="view-token" content="`+v.token+`">`)
		require.NotContains(t, front, "{{")
	})
	t.Run("LargeBodiesAreRefused", func(t *testing.T) {
		t.Parallel()
		for path, size := range map[string]int{"/switches/bus-down": maxCommand, "/load": maxCommand, "/cars": maxCar} {
			got := v.command(t, "POST", path, `{"on":true,"rate":7,"x":"`+strings.Repeat("x", size)+`"}`)
			require.Equal(t, http.StatusRequestEntityTooLarge, got.status, path)
			require.JSONEq(t, fmt.Sprintf(`{"error":"the body is larger than %d bytes"}`, size), got.body)
		}
	})
	t.Run("BadCommandsAreNamed", func(t *testing.T) {
		t.Parallel()
		for _, tc := range []struct {
			method, path, body string
			status             int
			says               string
		}{
			{"POST", "/load", `{"rate":501}`, 400, "from 0 to 500"},
			{"POST", "/load", `{"rate":-1}`, 400, "from 0 to 500"},
			{"POST", "/load", `{}`, 400, "from 0 to 500"},
			{"POST", "/load", `{"rate":"<b>"}`, 400, "not as expected"},
			{"POST", "/load", `rate=1`, 400, "not as expected"},
			{"POST", "/switches/bus-down", `{}`, 400, `{"on":true}`},
			{"POST", "/switches/no-such-thing", `{"on":true}`, 404, "no such switch"},
			{"POST", "/tour/9", ``, 404, "no such experiment"},
			{"POST", "/tour/x", ``, 404, "no such experiment"},
			{"GET", "/events/x", ``, 404, "UUID"},
			{"GET", "/events/x/where", ``, 404, "UUID"},
		} {
			got := v.command(t, tc.method, tc.path, tc.body)
			require.Equal(t, tc.status, got.status, "%s %s %s", tc.method, tc.path, tc.body)
			require.Equal(t, "application/json", got.header.Get("Content-Type"))
			var body struct{ Error string }
			require.NoError(t, json.Unmarshal([]byte(got.body), &body))
			require.Contains(t, body.Error, tc.says)
			require.NotContains(t, got.body, "<")
		}
		require.Equal(t, http.StatusMethodNotAllowed, v.command(t, "DELETE", "/cars", "").status)
		require.Equal(t, http.StatusNotFound, v.ask(t, "GET", "/page/index.html", "").status, "it is a template")
		require.Equal(t, http.StatusNotFound, v.ask(t, "GET", "/page/..%2fview.go", "").status)
		require.Equal(t, http.StatusNotFound, v.ask(t, "GET", "/etc/passwd", "").status)
	})
	t.Run("EveryAnswerIsGuarded", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/", "/page/view.css", "/meta", "/contracts", "/nothing", "/events/x", "/events/x/where"} {
			header := v.ask(t, "GET", path, "").header
			require.Equal(t, policy, header.Get("Content-Security-Policy"), path)
			require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
			require.Equal(t, "no-referrer", header.Get("Referrer-Policy"), path)
			require.Equal(t, "no-store", header.Get("Cache-Control"), path)
		}
	})
	t.Run("PageIsWhole", func(t *testing.T) {
		t.Parallel()
		front := v.ask(t, "GET", "/", "")
		require.Equal(t, "text/html; charset=utf-8", front.header.Get("Content-Type"))
		files := regexp.MustCompile(`(?:href|src)="(/page/[^"]+)"`).FindAllStringSubmatch(front.body, -1)
		require.NotEmpty(t, files)
		for _, file := range files {
			require.Equal(t, http.StatusOK, v.ask(t, "GET", file[1], "").status, file[1])
		}
		for file, kind := range map[string]string{"/page/main.js": "text/javascript; charset=utf-8", "/page/view.css": "text/css; charset=utf-8"} {
			require.Equal(t, kind, v.ask(t, "GET", file, "").header.Get("Content-Type"))
		}
	})
	t.Run("MetaTellsAll", func(t *testing.T) {
		t.Parallel()
		got := v.ask(t, "GET", "/meta", "")
		var meta meta
		require.NoError(t, json.Unmarshal([]byte(got.body), &meta))
		require.Equal(t, v.path.APIURL, meta.APIURL)
		require.Equal(t, 500, meta.MaxLoad)
		require.Len(t, meta.Hops, 6)
		require.Len(t, meta.Switches, 10)
		require.Len(t, meta.Tour, 5)
	})
	t.Run("CarsGoToTheAPI", func(t *testing.T) {
		t.Parallel()
		got := v.command(t, "POST", "/cars", car)
		require.Equal(t, http.StatusCreated, got.status)
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		require.Regexp(t, `^00-[0-9a-f]{32}-`, got.header.Get("Traceresponse"))
		require.Contains(t, got.body, `"<img src=x onerror=alert(1)>`, "verbatim")
		got = v.command(t, "POST", "/cars", domain.Refused)
		require.Equal(t, http.StatusBadRequest, got.status)
		var refused struct {
			Error  string
			Fields map[string]string
		}
		require.NoError(t, json.Unmarshal([]byte(got.body), &refused))
		require.Len(t, refused.Fields, 3, "the API's own words")
	})
}

func TestHostileTextIsEscaped(t *testing.T) {
	t.Parallel()
	v := newRig(t, t.TempDir())
	const hostile = "<img src=x onerror=alert(1)></script>\u2028&"
	got := v.command(t, "POST", "/cars", domain.Named(hostile))
	require.Equal(t, http.StatusCreated, got.status)
	var f frame
	labtest.Eventually(t, "the event on the page", func() bool {
		f = v.state()
		return len(f.Events) == 1 && f.Events[0].Hop == 6
	})
	require.Contains(t, f.Events[0].Title, hostile)
	texts := []string{string(encode("state", f))}
	for _, path := range []string{"", "/where"} {
		got := v.ask(t, "GET", "/events/"+f.Events[0].ID.String()+path, "")
		require.Equal(t, http.StatusOK, got.status, got.body)
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		texts = append(texts, got.body)
	}
	for _, text := range texts {
		require.NotContains(t, text, "<")
		require.NotContains(t, text, "&")
		require.NotContains(t, text, "\u2028")
	}
}

func TestTakenPortIsNoTrouble(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	listener, err := listen(t.Context(), taken.Addr().String())
	require.NoError(t, err)
	defer listener.Close()
	require.NotEqual(t, taken.Addr().String(), listener.Addr().String())
	require.Contains(t, listener.Addr().String(), "127.0.0.1:")
}
