package view

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
)

// guard keeps everybody away but the view's own page and programs of this machine, whoever's they are. The server listens on 127.0.0.1 only, but a browser on
// this machine sends requests there for any page of the web: what tells them apart is in the headers.
type guard struct {
	hosts []string // that the server goes by
	token string
	next  http.Handler
}

// policy lets the page load nothing but the server's own files, and nobody frame it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if why := g.refuses(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	g.next.ServeHTTP(w, r)
}

func (g guard) refuses(r *http.Request) string {
	// A name that an attacker's DNS points at 127.0.0.1 makes the attacker's page and this server one origin (DNS rebinding). The browser
	// says the name.
	if !slices.Contains(g.hosts, strings.ToLower(r.Host)) {
		return "refused: this server is " + strings.Join(g.hosts, " or ") + ", not " + quoted(r.Host)
	}
	if origins := r.Header.Values("Origin"); len(origins) > 0 && !slices.Equal(origins, []string{"http://" + strings.ToLower(r.Host)}) {
		return "refused: the request comes from a page of " + quoted(strings.Join(origins, ", "))
	}
	// A link to the page may be anywhere: what it opens is a window of its own, which no other page can read or frame.
	if r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return ""
	}
	// GET needs no Origin. same-site is another port of this machine.
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return "refused: the request comes from a page of another site"
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return ""
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-View-Token")), []byte(g.token)) != 1 {
		return "refused: X-View-Token is not that of this page; reload it"
	}
	return ""
}

// quoted is what a stranger says, in plain text and cut.
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
