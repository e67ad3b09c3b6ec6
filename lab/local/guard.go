package local

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Hosts returns the names under which a server of this machine may be called, such as 127.0.0.1:3000 and localhost:3000.
func Hosts(listener net.Listener) []string {
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	return []string{"127.0.0.1:" + port, "localhost:" + port}
}

// Stranger says why a request is refused, because it comes from a web page other than the server's own. It returns "" for the server's page
// and for programs of this machine. A server listens on 127.0.0.1 only, but a browser on this machine sends requests there for any page of
// the web. Only the headers tell them apart. linked says that a link on another page may open the request's path.
func Stranger(r *http.Request, hosts []string, linked bool) string {
	// A name that an attacker's DNS points at 127.0.0.1 makes the attacker's page and this server one origin (DNS rebinding). The browser
	// says the name.
	if !slices.Contains(hosts, strings.ToLower(r.Host)) {
		return "refused: this server is " + strings.Join(hosts, " or ") + ", not " + quoted(r.Host)
	}
	if origins := r.Header.Values("Origin"); len(origins) > 0 && !slices.Equal(origins, []string{"http://" + strings.ToLower(r.Host)}) {
		return "refused: the request comes from a page of " + quoted(strings.Join(origins, ", "))
	}
	// A link opens a window of its own, which no other page can read. A frame would have another Sec-Fetch-Dest.
	if linked && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return ""
	}
	// GET needs no Origin. same-site is another port of this machine.
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return "refused: the request comes from a page of another site"
	}
	return ""
}

// quoted returns a client's text as ASCII in quotes, cut to 100 bytes.
func quoted(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return `"` + strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s) + `"`
}

// withoutStrangers answers 403 to web pages, in the form of the API's errors. With DATABASE_URL or a bus on AWS, a page of the internet
// would otherwise write to them.
func withoutStrangers(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := Stranger(r, hosts, true)
		if why == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": why})
	})
}
