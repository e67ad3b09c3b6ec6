//go:build browser

package browser

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// untouched requires that no foreign page has changed anything.
func (d *dev) untouched(t *testing.T, cars int) {
	t.Helper()
	s := d.state(t)
	require.Zero(t, s.Load, "a foreign page has set the load")
	require.Zero(t, s.Tour.Running, "a foreign page has started the tour")
	for _, one := range s.Switches {
		require.False(t, one.On || one.Busy, "a foreign page has switched %s", one.Name)
	}
	made, _ := d.truth(t)
	require.Equal(t, cars, made, "a foreign page has made a car")
}

// A real page of another origin attacks, in a browser that also shows the view.
func refusesForeignPages(t *testing.T, d *dev) {
	cars, _ := d.truth(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><title>elsewhere</title><body><script>if (self !== top) document.body.append('the other page')</script>`)
	}))
	t.Cleanup(site.Close)
	home, err := url.Parse(site.URL)
	require.NoError(t, err)
	view, err := url.Parse(d.view)
	require.NoError(t, err)
	// Another port of the same machine is the same site. Another name is another site.
	for _, host := range []string{"127.0.0.1", "localhost", "rebound.example"} {
		tb := open(t, "http://"+net.JoinHostPort(host, home.Port()), desk)
		tb.allowed = []string{"Failed to load resource", "blocked by CORS policy", "Refused to", "frame", "ERR_BLOCKED_BY_RESPONSE", "violates the following"}
		outcome := eval[map[string]string](tb, fmt.Sprintf(`(async view => {
			const outcome = {};
			const answer = async (name, path, options) => {
				try {
					const response = await fetch(view + path, options);
					outcome[name] = response.type + ' ' + response.status + ' ' + (await response.text()).slice(0, 40);
				} catch (e) { outcome[name] = 'refused'; }
			};
			const post = body => ({method: 'POST', mode: 'no-cors', body: JSON.stringify(body)});
			await answer('car', '/cars', post({make: 'Foreign', model: 'Page', year: 2023}));
			await answer('load', '/load', post({rate: 100}));
			await answer('switch', '/switches/kill-relay', post({on: true}));
			await answer('once', '/switches/poison', post({on: true}));
			await answer('tour', '/tour/1', post({}));
			await answer('read', '/');
			await answer('readMeta', '/meta');
			await answer('token', '/load', {method: 'POST', headers: {'X-View-Token': 'guess'}, body: '{"rate":100}'});
			const form = document.body.appendChild(document.createElement('form'));
			const sink = document.body.appendChild(document.createElement('iframe'));
			sink.name = form.target = 'sink'; form.method = 'POST'; form.enctype = 'text/plain'; form.action = view + '/load';
			form.append(Object.assign(document.createElement('input'), {name: '{"rate":100,"x":"', value: '"}'}));
			form.submit();
			await new Promise(done => { sink.onload = done; setTimeout(done, 2000); });
			await new Promise(done => {
				const live = new EventSource(view + '/live');
				const end = text => { outcome.live = text; live.close(); done(); };
				live.onerror = () => end('refused');
				live.onopen = live.onmessage = () => end('open');
				live.addEventListener('state', () => end('read'));
				setTimeout(() => end('silent'), 3000);
			});
			const frame = document.body.appendChild(document.createElement('iframe'));
			frame.src = view + '/';
			await new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
			const control = document.body.appendChild(document.createElement('iframe'));
			control.src = location.protocol + '//' + (location.hostname === 'localhost' ? '127.0.0.1' : 'localhost') + ':' + location.port;
			await new Promise(done => { control.onload = done; });
			return outcome;
		})(%q)`, d.view))
		for name, result := range outcome {
			switch name {
			case "car", "load", "switch", "once", "tour": // no-cors shows nothing of an answer
				require.Contains(t, []string{"opaque 0 ", "refused"}, result, "%s from %s", name, host)
			default:
				require.Equal(t, "refused", result, "%s from %s", name, host)
			}
		}
		require.Len(t, outcome, 9)
		frames := framed(tb)
		require.Contains(t, frames, "the other page", "this test does not see into frames")
		require.NotContains(t, frames, "view-token", "a page of %s frames the view", host)
		d.untouched(t, cars)
	}

	// The rebound name leads to the view's own port. For a browser that is one origin, so only the
	// Host header shows the difference.
	tb := open(t, "http://"+net.JoinHostPort("rebound.example", view.Port())+"/", desk)
	tb.allowed = []string{"status of 403"}
	require.False(t, tb.is(`document.querySelector('meta[name=view-token]')`), "the view answers to a foreign name")
	require.Equal(t, 403, eval[int](tb, `fetch('/meta').then(r => r.status)`))
	require.Equal(t, 403, eval[int](tb, `fetch('/load', {method: 'POST', body: '{"rate":100}'}).then(r => r.status)`))
	d.untouched(t, cars)

	// The view itself, under each of its names, and its policy.
	for _, host := range []string{"127.0.0.1", "localhost"} {
		tb := open(t, "http://"+net.JoinHostPort(host, view.Port()), desk)
		tb.connected()
		tb.allowed = []string{"Content Security Policy", "violates"}
		eval[bool](tb, `(document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.hacked = 1">'), true)`)
		eval[bool](tb, `(document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'})), true)`)
		require.False(t, eval[bool](tb, `new Promise(done => setTimeout(() => done('hacked' in window), 200))`), "an inline script runs")
		require.Equal(t, "refused", eval[string](tb, fmt.Sprintf(`fetch(%q, {mode: 'no-cors'}).then(() => 'reached', () => 'refused')`, site.URL)), "the page may talk to others")
	}
}

// framed is the page with what its frames show, as the browser itself sees it.
func framed(tb *tab) string {
	tb.t.Helper()
	depth, pierce := int64(-1), true
	whole, err := chromedp.Call(tb.ctx, dom.GetDocument, dom.GetDocumentParams{Depth: &depth, Pierce: &pierce})
	require.NoError(tb.t, err)
	shown, err := json.Marshal(whole)
	require.NoError(tb.t, err)
	return string(shown)
}

// Programs other than browsers send no Origin. The token stops them from changing anything.
func refusesWhoHasNoToken(t *testing.T, d *dev) {
	cars, _ := d.truth(t)
	view, err := url.Parse(d.view)
	require.NoError(t, err)
	tb := show(t, d, desk)
	token := eval[string](tb, `document.querySelector('meta[name=view-token]').content`)
	require.GreaterOrEqual(t, len(token), 20)
	ask := func(method, path, body string, headers map[string]string) int {
		request, err := http.NewRequest(method, d.view+path, strings.NewReader(body))
		require.NoError(t, err)
		for name, value := range headers {
			request.Header.Set(name, value)
			if name == "Host" {
				request.Host = value
			}
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	for path, body := range map[string]string{
		"/cars": `{"make":"No","model":"Token","year":2023}`, "/load": `{"rate":100}`, "/tour/1": "", "/switches/kill-relay": `{"on":true}`,
	} {
		require.Equal(t, http.StatusForbidden, ask(http.MethodPost, path, body, nil), path)
		require.Equal(t, http.StatusForbidden, ask(http.MethodPost, path, body, map[string]string{"X-View-Token": token[1:] + "x"}), path)
		for name, value := range map[string]string{
			"Host": "rebound.example:" + view.Port(), "Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "cross-site",
		} {
			require.Equal(t, http.StatusForbidden, ask(http.MethodPost, path, body, map[string]string{"X-View-Token": token, name: value}), "%s with %s: %s", path, name, value)
		}
	}
	require.Equal(t, http.StatusForbidden, ask(http.MethodDelete, "/tour", "", nil))
	for _, path := range []string{"/", "/meta", "/live", "/page/view.css"} {
		require.Equal(t, http.StatusForbidden, ask(http.MethodGet, path, "", map[string]string{"Host": "rebound.example:" + view.Port()}), path)
		require.Equal(t, http.StatusForbidden, ask(http.MethodGet, path, "", map[string]string{"Origin": "null"}), path)
	}
	d.untouched(t, cars)
	require.Equal(t, http.StatusOK, ask(http.MethodPost, "/load", `{"rate":0}`, map[string]string{"X-View-Token": token}), "with the token")

	// The view answers nobody on the network.
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			conn, err := net.Dial("tcp", net.JoinHostPort(ip.IP.String(), view.Port()))
			if err == nil {
				_ = conn.Close()
			}
			require.Error(t, err, "the view listens on %s", ip.IP)
		}
	}
}
