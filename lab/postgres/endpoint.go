package postgres

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Endpoint is an address that leads to one server and later to another, as the name of an RDS instance does. A connection stays with the
// server that it was opened to.
type Endpoint struct {
	listener net.Listener
	server   atomic.Pointer[Server]
	open     context.Context
	end      context.CancelFunc
}

// NewEndpoint listens on a free port of 127.0.0.1 until Close.
func NewEndpoint(server *Server) (*Endpoint, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening an endpoint: %w", err)
	}
	e := &Endpoint{listener: listener}
	e.open, e.end = context.WithCancel(context.Background())
	e.LeadTo(server)
	go e.serve()
	return e, nil
}

// LeadTo leads later connections to server.
func (e *Endpoint) LeadTo(server *Server) { e.server.Store(server) }

// URL returns the server's URL by way of the endpoint. A standby and its primary have the same password.
func (e *Endpoint) URL() string {
	return serverURL(e.server.Load().password, e.listener.Addr().(*net.TCPAddr).Port, database)
}

// Close ends the endpoint and its connections.
func (e *Endpoint) Close() error {
	e.end()
	return e.listener.Close()
}

func (e *Endpoint) serve() {
	for {
		client, err := e.listener.Accept()
		if err != nil {
			return
		}
		go e.carry(client)
	}
}

func (e *Endpoint) carry(client net.Conn) {
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.server.Load().port))
	if err != nil {
		_ = client.Close()
		return
	}
	end := func() { _, _ = client.Close(), server.Close() }
	defer context.AfterFunc(e.open, end)()
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		end() // one side has ended, and so do both
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}
