package view

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const (
	frameGap   = 100 * time.Millisecond // least time between two frames, so 10 a second at most
	idleGap    = time.Second            // most time between two frames
	maxReaders = 32
	// writeTimeout is how long a reader may leave a frame unread before its connection is closed.
	// Until then it costs one frame of memory.
	writeTimeout = 20 * time.Second
)

// frames makes the frames of /live, each once for all readers. A reader who has not taken the frame
// before gets only the newest one, so that nothing is ever queued.
type frames[T any] struct {
	state  func() T
	same   func(one, other T) bool // reports whether other need not be sent after one
	series func() any

	writeTimeout time.Duration

	mu      sync.Mutex
	readers map[*reader]bool
	joined  bool          // since the last frame
	came    chan struct{} // somebody has joined
}

// reader is one connection. Each of its channels holds the newest frame that it has not taken.
type reader struct {
	state, series chan []byte
	skipped       int // frames that it never took
}

func newFrames[T any](state func() T, same func(one, other T) bool, series func() any) *frames[T] {
	return &frames[T]{
		state: state, same: same, series: series, writeTimeout: writeTimeout, readers: map[*reader]bool{}, came: make(chan struct{}, 1),
	}
}

// run makes frames while somebody reads them.
func (f *frames[T]) run(ctx context.Context) {
	var sent, plotted time.Time
	var last T
	for ctx.Err() == nil {
		reading, joined := f.who()
		if !reading {
			select {
			case <-ctx.Done():
				return
			case <-f.came:
				continue
			}
		}
		if joined {
			sent, plotted = time.Time{}, time.Time{} // the new readers have nothing yet
		}
		now := time.Now()
		state := f.state()
		if !f.same(last, state) || now.Sub(sent) >= idleGap-frameGap/2 {
			f.offer("state", state)
			last, sent = state, now
		}
		if now.Sub(plotted) >= time.Second-frameGap/2 {
			f.offer("series", f.series())
			plotted = now
		}
		// The time runs from this frame on. A ticker would make up for a late beat with an early
		// one.
		sleep(ctx, frameGap)
	}
}

func encode(event string, data any) []byte {
	// Marshal escapes <, > and &, and writes no line break, so no text can end the frame early.
	content, err := json.Marshal(data)
	if err != nil {
		content, _ = json.Marshal(map[string]string{"problem": "encoding the " + event + ": " + err.Error()})
	}
	return append(append([]byte("event: "+event+"\ndata: "), content...), '\n', '\n')
}

func (f *frames[T]) who() (reading, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	joined, f.joined = f.joined, false
	return len(f.readers) > 0, joined
}

func (f *frames[T]) offer(event string, data any) {
	content := encode(event, data)
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.readers {
		next := r.state
		if event == "series" {
			next = r.series
		}
		select {
		case <-next:
			r.skipped++
		default:
		}
		next <- content // nobody else sends, so there is room
	}
}

func (f *frames[T]) join() *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= maxReaders {
		return nil
	}
	r := &reader{state: make(chan []byte, 1), series: make(chan []byte, 1)}
	f.readers[r], f.joined = true, true
	select {
	case f.came <- struct{}{}:
	default:
	}
	return r
}

func (f *frames[T]) leave(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
}

// take waits for a frame, and prefers the state. It returns nil when ctx ends.
func (r *reader) take(ctx context.Context) []byte {
	select {
	case content := <-r.state:
		return content
	default:
	}
	select {
	case content := <-r.state:
		return content
	case content := <-r.series:
		return content
	case <-ctx.Done():
		return nil
	}
}

// ServeHTTP is GET /live.
func (f *frames[T]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reader := f.join()
	if reader == nil {
		refuse(w, refusal{http.StatusServiceUnavailable, "too many pages are open"})
		return
	}
	defer f.leave(reader)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	control := http.NewResponseController(w)
	for content := reader.take(r.Context()); content != nil; content = reader.take(r.Context()) {
		if control.SetWriteDeadline(time.Now().Add(f.writeTimeout)) != nil {
			return
		}
		if _, err := w.Write(content); err != nil || control.Flush() != nil {
			return
		}
	}
}
