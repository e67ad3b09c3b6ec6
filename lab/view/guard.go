package view

import (
	"crypto/subtle"
	"net/http"

	"rds-outbox-demo/lab/local"
)

// guard keeps out every web page but the view's own (local.Stranger). Commands also need the page's
// token.
type guard struct {
	hosts []string // the server's names
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
	// A link to the page may be on any site.
	if why := local.Stranger(r, g.hosts, r.URL.Path == "/"); why != "" {
		return why
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return ""
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-View-Token")), []byte(g.token)) != 1 {
		return "refused: X-View-Token is not that of this page; reload it"
	}
	return ""
}
