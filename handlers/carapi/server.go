package carapi

import (
	"context"
	"net/http"
	"time"
)

const (
	// maxRequestTime is how long a request may take where nobody else has a limit. It ends before WriteTimeout, after which an
	// answer reaches nobody.
	maxRequestTime = 40 * time.Second
	// margin is kept before a deadline for the answer and its log line. At the deadline Lambda ends the environment, and neither
	// would get out. Of a short time it is half.
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

// NewServer returns a server of handler for a program that listens itself; on Lambda, API Gateway has the limits. The caller
// sets Addr or serves a listener, and ends it with Shutdown.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler,
		// net/http has no limits of its own: a client that sends its header byte by byte would hold a connection for good.
		ReadHeaderTimeout: 5 * time.Second,
		// The whole request: 1 MiB at 70 kB/s.
		ReadTimeout: 15 * time.Second,
		// From the end of the header to the end of the answer. The work itself has maxRequestTime.
		WriteTimeout: 45 * time.Second,
		// A kept connection between two requests.
		IdleTimeout: 2 * time.Minute,
		// Memory that anyone can claim before a route is known; the default is 1 MiB.
		MaxHeaderBytes: 16 << 10,
	}
}
