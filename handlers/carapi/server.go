package carapi

import (
	"net/http"
	"time"
)

// NewServer returns a server of handler for a program that listens itself; on Lambda, API Gateway has the limits. The caller
// sets Addr or serves a listener, and ends it with Shutdown.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler,
		// net/http has no limits of its own: a client that sends its header byte by byte would hold a connection for good.
		ReadHeaderTimeout: 5 * time.Second,
		// The whole request: 1 MiB at 70 kB/s.
		ReadTimeout: 15 * time.Second,
		// From the end of the header to the end of the answer: ReadTimeout, then the database's time.
		WriteTimeout: 45 * time.Second,
		// A kept connection between two requests.
		IdleTimeout: 2 * time.Minute,
		// Memory that anyone can claim before a route is known; the default is 1 MiB.
		MaxHeaderBytes: 16 << 10,
	}
}
