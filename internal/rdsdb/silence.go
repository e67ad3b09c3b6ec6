package rdsdb

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// PingTimeout is how long a connection that was idle may take to answer before another one is made. In a failover of RDS the
	// old server's packets are dropped without an error (https://github.com/npgsql/npgsql/issues/3037), and a ping without a
	// limit waits for the whole of its context (https://github.com/jackc/pgx/issues/2394).
	PingTimeout = time.Second
	// silenceGrace is how much longer than its statement limit a server may say nothing.
	silenceGrace = 2 * time.Second
)

// dialer finds out within 11 seconds that the server's machine has gone, also where a statement has no limit.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}

// limitSilence makes config's connections fail when they wait longer than limit for the server's next bytes. statement_timeout
// holds only while the server is there to keep it.
func limitSilence(config *pgconn.Config, limit time.Duration) {
	config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &impatientConn{Conn: conn, limit: limit}, nil
	}
}

// impatientConn ends each read after limit. pgx reads only while it waits for an answer, so an idle connection is not affected.
type impatientConn struct {
	net.Conn
	limit time.Duration

	mu sync.Mutex
	// until is pgx's own deadline, which it sets when a context ends. Without it a read that begins just after would undo it.
	until time.Time
}

func (c *impatientConn) Read(p []byte) (int, error) {
	if err := c.startPatience(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *impatientConn) startPatience() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := time.Now().Add(c.limit)
	if !c.until.IsZero() && c.until.Before(end) {
		end = c.until
	}
	return c.Conn.SetReadDeadline(end)
}

func (c *impatientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return c.Conn.SetDeadline(t)
}

func (c *impatientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return c.Conn.SetReadDeadline(t)
}
