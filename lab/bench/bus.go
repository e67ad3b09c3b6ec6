package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// bus is an EventBridge bus that accepts everything and keeps nothing, at once or after a delay: what is measured against it is the
// consumer alone.
type bus struct {
	url     string
	entries atomic.Int64
	server  *http.Server
	delay   time.Duration

	mu     sync.Mutex
	keep   bool
	bodies [][]byte // of the calls while keep is set
}

// detailType is in each entry once: inside of Detail the quotes are escaped.
var detailType = []byte(`"DetailType":`)

func newBus(delay time.Duration) (*bus, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	b := &bus{url: "http://" + listener.Addr().String(), delay: delay}
	b.server = &http.Server{Handler: http.HandlerFunc(b.answer), ReadHeaderTimeout: time.Minute}
	go func() { _ = b.server.Serve(listener) }()
	return b, nil
}

func (b *bus) close() { _ = b.server.Close() }

func (b *bus) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if r.Header.Get("X-Amz-Target") != putEvents {
		_, _ = io.WriteString(w, `{"Name":"bench"}`) // DescribeEventBus
		return
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, r.ContentLength)+bytes.MinRead))
	_, _ = body.ReadFrom(r.Body)
	n := bytes.Count(body.Bytes(), detailType)
	b.mu.Lock()
	if b.keep {
		b.bodies = append(b.bodies, body.Bytes())
	}
	b.mu.Unlock()
	if b.delay > 0 {
		time.Sleep(b.delay)
	}
	const entry = `{"EventId":"11710aed-b79e-4468-a20b-bb3c0c3b4860"}`
	out := `{"FailedEntryCount":0,"Entries":[` + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + "]}"
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = io.WriteString(w, out)
	b.entries.Add(int64(n))
}

const putEvents = "AWSEvents.PutEvents"

// recorded returns the bodies of the calls that do makes.
func (b *bus) recorded(do func() error) ([][]byte, error) {
	b.mu.Lock()
	b.keep, b.bodies = true, nil
	b.mu.Unlock()
	err := do()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep = false
	return b.bodies, err
}
