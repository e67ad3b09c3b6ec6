package labtest

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy is a TCP way to a server.
type Proxy struct {
	Address  string // host:port, on which it listens
	vanished atomic.Bool
}

// NewProxy stands before the server at an address until the test ends. pass gets each piece that a
// side sent and returns what goes on to the other side.
func NewProxy(t testing.TB, server string, pass func(p *Proxy, fromServer bool, piece []byte) []byte) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	p := &Proxy{Address: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			early := !p.vanished.Load()
			gone := func() bool { return early && p.vanished.Load() }
			go carry(behind, client, gone, func(piece []byte) []byte { return pass(p, false, piece) })
			go carry(client, behind, gone, func(piece []byte) []byte { return pass(p, true, piece) })
		}
	}()
	return p
}

// Vanish makes the server vanish for the connections that there are. Nothing arrives any more, not
// even that a side has closed its end. Later connections pass.
func (p *Proxy) Vanish() { p.vanished.Store(true) }

// Vanished reports whether Vanish was called.
func (p *Proxy) Vanished() bool { return p.vanished.Load() }

func carry(to, from net.Conn, gone func() bool, pass func([]byte) []byte) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		piece := pass(buffer[:n])
		if gone() {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			_, err = to.Write(piece)
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}
