package sim

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
)

var errReset = &net.OpError{Op: "read", Net: "sim", Err: errors.New("connection reset by peer")}

// conn is a connection to the modelled server. A write never waits. net.Pipe would wait until the other side reads.
type conn struct {
	number   int
	mu       sync.Mutex
	changed  *sync.Cond
	toClient []byte
	toServer []byte
	wasCut   bool
	closed   bool // by the client
	ended    bool // by the server
	deadline time.Time
	timer    *time.Timer
	sent     pglogrepl.LSN // by the server. world.mu guards it.
}

func newConn(number int) *conn {
	c := &conn{number: number}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// change changes the connection, and wakes who waits for that.
func (c *conn) change(how func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	how()
	c.changed.Broadcast()
}

// cut ends the connection without a word to either side's program.
func (c *conn) cut() { c.change(func() { c.wasCut = true }) }

func (c *conn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wasCut
}

func (c *conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wasCut || c.closed || c.ended
}

// Read is the client's.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.wasCut:
			return 0, errReset
		case c.closed:
			return 0, net.ErrClosed
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(c.toClient) > 0:
			n := copy(b, c.toClient)
			c.toClient = c.toClient[n:]
			return n, nil
		case c.ended:
			return 0, io.EOF
		}
		c.changed.Wait()
	}
}

// Write is the client's.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.wasCut:
		return 0, errReset
	case c.closed:
		return 0, net.ErrClosed
	}
	c.toServer = append(c.toServer, b...)
	c.changed.Broadcast()
	return len(b), nil
}

// Close is the client's.
func (c *conn) Close() error {
	c.change(func() { c.closed = true })
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.change(func() {
		c.deadline = t
		if c.timer != nil {
			c.timer.Stop()
		}
		if !t.IsZero() && time.Now().Before(t) {
			c.timer = time.AfterFunc(time.Until(t), c.changed.Broadcast)
		}
	})
	return nil
}

// SetDeadline sets the one for reading, because no write waits.
func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
func (c *conn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// serverSide is what the server reads from and writes to.
type serverSide struct{ *conn }

func (s serverSide) Read(b []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.toServer) > 0:
			n := copy(b, c.toServer)
			c.toServer = c.toServer[n:]
			return n, nil
		case c.wasCut || c.closed || c.ended:
			return 0, io.EOF
		}
		c.changed.Wait()
	}
}

func (s serverSide) Write(b []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wasCut || c.closed {
		return 0, errReset
	}
	c.toClient = append(c.toClient, b...)
	c.changed.Broadcast()
	return len(b), nil
}

// hangUp ends the connection after what was written.
func (s serverSide) hangUp() { s.change(func() { s.ended = true }) }
