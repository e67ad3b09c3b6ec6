package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// pieces measures the steps of a start one by one, through a front before the database, which makes each a little longer.
func (f *function) pieces(ctx context.Context, n int) ([]Row, error) {
	names := []string{"of it exec to the Runtime API's first call", "then the secret", "then the call to the database", "then the session", "then statements and answer"}
	rows := make([]Row, len(names))
	for i, name := range names {
		rows[i] = Row{What: name, Unit: "ms"}
	}
	for range n {
		inFront, err := newFront(ctx, f.database)
		if err != nil {
			return nil, err
		}
		s, err := f.start(ctx, inFront.listener.Addr().String(), inFront)
		inFront.close()
		if err != nil {
			return nil, err
		}
		steps := []time.Time{s.exec, s.asked, s.secret, s.connected, s.ready, s.answered}
		for i := range rows {
			rows[i].Ours = append(rows[i].Ours, milliseconds(steps[i+1].Sub(steps[i])))
		}
	}
	return rows, nil
}

// front stands before PostgreSQL for one session, and notes when it was called and when the session was ready.
type front struct {
	listener net.Listener
	group    sync.WaitGroup

	mu               sync.Mutex
	connected, ready time.Time
}

func newFront(ctx context.Context, behind string) (*front, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	f := &front{listener: listener}
	f.group.Go(func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		f.note(&f.connected)
		server, err := (&net.Dialer{}).DialContext(ctx, "tcp", behind)
		if err != nil {
			return
		}
		f.group.Go(func() {
			defer server.Close()
			_, _ = io.Copy(server, client)
		})
		buffer := make([]byte, 8<<10)
		for {
			n, err := server.Read(buffer)
			if strings.HasSuffix(string(buffer[:n]), readyForQuery) {
				f.note(&f.ready)
			}
			if _, failed := client.Write(buffer[:n]); failed != nil || err != nil {
				return
			}
		}
	})
	return f, nil
}

// readyForQuery is PostgreSQL's message that it waits for a statement, outside of a transaction.
const readyForQuery = "Z\x00\x00\x00\x05I"

// note keeps the first time.
func (f *front) note(t *time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.IsZero() {
		*t = time.Now()
	}
}

func (f *front) times() (connected, ready time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connected, f.ready
}

func (f *front) close() {
	_ = f.listener.Close()
	f.group.Wait()
}
