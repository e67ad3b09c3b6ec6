package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
)

// Endpoint is an address that leads to one server and later to another, as the name of an RDS instance does. A connection stays with the
// server that it was opened to.
type Endpoint struct {
	listener net.Listener
	mu       sync.Mutex
	server   string // host:port
	open     map[net.Conn]bool
}

// NewEndpoint listens on a free port of 127.0.0.1 until Close.
func NewEndpoint(server *Server) (*Endpoint, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening an endpoint: %w", err)
	}
	e := &Endpoint{listener: listener, open: map[net.Conn]bool{}}
	if err := e.LeadTo(server); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	go e.serve()
	return e, nil
}

// LeadTo leads later connections to server.
func (e *Endpoint) LeadTo(server *Server) error {
	address, err := url.Parse(server.URL())
	if err != nil {
		return fmt.Errorf("leading the endpoint: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server = address.Host
	return nil
}

// URL returns the server's URL by way of the endpoint. A standby and its primary have the same password.
func (e *Endpoint) URL(server *Server) (string, error) {
	address, err := url.Parse(server.URL())
	if err != nil {
		return "", fmt.Errorf("reading the server's URL: %w", err)
	}
	address.Host = e.listener.Addr().String()
	return address.String(), nil
}

// Close ends the endpoint and its connections.
func (e *Endpoint) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.open {
		_ = conn.Close()
	}
	return err
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
	e.mu.Lock()
	address := e.server
	e.mu.Unlock()
	server, err := net.Dial("tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	e.note(client, server)
	both := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		both <- struct{}{}
	}
	go pass(server, client)
	go pass(client, server)
	<-both // one side has ended, and so do both
	_, _ = client.Close(), server.Close()
	<-both
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, client)
	delete(e.open, server)
}

func (e *Endpoint) note(conns ...net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, conn := range conns {
		e.open[conn] = true
	}
}
