package carapi

import (
	"context"
	"net/http"
	"time"
)

const (
	// maxRequestTime limits a request that has no other limit. It ends before WriteTimeout, after which
	// an answer no longer reaches the client.
	maxRequestTime = 40 * time.Second
	// margin is the time kept before a deadline for the answer and its log line. At the deadline Lambda
	// ends the environment, and both would be lost. If there is little time left, margin is half of it.
	margin = time.Second
)

// withMargin returns the context of a request's work, which ends before the request's own.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, maxRequestTime)
	}
	return context.WithDeadline(ctx, deadline.Add(-max(0, min(margin, time.Until(deadline)/2))))
}

// NewServer returns a server of handler for a program that listens itself. On Lambda, API Gateway sets
// the limits. The caller sets Addr or serves a listener, and ends the server with Shutdown.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler,
		// net/http has no default limits. A client that sends its header byte by byte would hold a
		// connection for ever.
		ReadHeaderTimeout: 5 * time.Second,
		// For the whole request, which is 1 MiB at 70 kB/s.
		ReadTimeout: 15 * time.Second,
		// From the end of the header to the end of the answer. The work itself has maxRequestTime.
		WriteTimeout: 45 * time.Second,
		// How long a connection stays open between two requests.
		IdleTimeout: 2 * time.Minute,
		// Memory that any client can claim before a route is known. The default is 1 MiB.
		MaxHeaderBytes: 16 << 10,
	}
}
