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

// reader is one connection. frames.mu guards its next frames.
type reader struct {
	state, series []byte
	ready         chan struct{}
	skipped       int
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
			f.offer(encode("state", state), nil)
			last, sent = state, now
		}
		if now.Sub(plotted) >= time.Second-frameGap/2 {
			f.offer(nil, encode("series", f.series()))
			plotted = now
		}
		// The time runs from this frame on. A ticker would make up for a late beat with an early
		// one.
		select {
		case <-ctx.Done():
		case <-time.After(frameGap):
		}
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

func (f *frames[T]) offer(state, series []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.readers {
		if state != nil {
			if r.state != nil {
				r.skipped++
			}
			r.state = state
		}
		if series != nil {
			r.series = series
		}
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

func (f *frames[T]) join() *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= maxReaders {
		return nil
	}
	r := &reader{ready: make(chan struct{}, 1)}
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

// take waits until there is something to write, and returns it.
func (f *frames[T]) take(ctx context.Context, r *reader) (state, series []byte) {
	select {
	case <-ctx.Done():
		return nil, nil
	case <-r.ready:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	state, series = r.state, r.series
	r.state, r.series = nil, nil
	return state, series
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
	for {
		state, series := f.take(r.Context(), reader)
		if r.Context().Err() != nil {
			return
		}
		if control.SetWriteDeadline(time.Now().Add(f.writeTimeout)) != nil {
			return
		}
		for _, frame := range [][]byte{state, series} {
			if _, err := w.Write(frame); err != nil {
				return
			}
		}
		if control.Flush() != nil {
			return
		}
	}
}
