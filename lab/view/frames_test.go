package view

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// stream serves frames of a state that changes with each look when busy says so.
func stream(t *testing.T, busy *atomic.Bool, padding string) (*frames, string) {
	t.Helper()
	var changed atomic.Uint64
	f := newFrames(func() (any, uint64) {
		if busy.Load() {
			changed.Add(1)
		}
		return map[string]any{"n": changed.Load(), "padding": padding}, changed.Load()
	}, func() any { return map[string]any{"series": "<b>"} })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		cancel()
		<-done
	})
	return f, server.URL
}

type received struct {
	at    time.Time
	event string
	n     uint64
}

// listenTo reads frames until the test ends.
func listenTo(t *testing.T, url string) <-chan received {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.Equal(t, "text/event-stream; charset=utf-8", response.Header.Get("Content-Type"))
	frames := make(chan received, 1000)
	go func() {
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<22)
		event := ""
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				event = name
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var body struct{ N uint64 }
				_ = json.Unmarshal([]byte(data), &body)
				frames <- received{time.Now(), event, body.N}
			}
		}
	}()
	return frames
}

// collect takes frames of a kind for a time.
func collect(frames <-chan received, event string, d time.Duration) (all []received) {
	for end := time.After(d); ; {
		select {
		case f := <-frames:
			if f.event == event {
				all = append(all, f)
			}
		case <-end:
			return all
		}
	}
}

func TestAtMostTenFramesASecond(t *testing.T) { // not parallel: it takes the time
	busy := &atomic.Bool{}
	busy.Store(true)
	_, url := stream(t, busy, "")
	one, other := listenTo(t, url), listenTo(t, url)
	for _, frames := range []<-chan received{one, other} {
		all := collect(frames, "state", 2*time.Second)
		took := all[len(all)-1].at.Sub(all[0].at)
		require.LessOrEqual(t, float64(len(all)-2), took.Seconds()*10, "%d frames in %s", len(all), took)
		require.GreaterOrEqual(t, len(all), 10)
	}
}

func TestOneFrameASecondWhenNothingHappens(t *testing.T) { // not parallel: it takes the time
	_, url := stream(t, &atomic.Bool{}, "")
	frames := listenTo(t, url)
	all := collect(frames, "state", 3500*time.Millisecond)
	require.GreaterOrEqual(t, len(all), 3)
	require.LessOrEqual(t, len(all), 6)
	series := collect(frames, "series", 2500*time.Millisecond)
	require.GreaterOrEqual(t, len(series), 2)
	require.LessOrEqual(t, len(series), 4)
}

func TestWhoeverJoinsGetsAFrameAtOnce(t *testing.T) { // not parallel: it takes the time
	_, url := stream(t, &atomic.Bool{}, "")
	listenTo(t, url)
	for range 3 {
		asked := time.Now()
		first := <-listenTo(t, url)
		require.Equal(t, "state", first.event)
		require.Less(t, first.at.Sub(asked), 500*time.Millisecond)
	}
}

// A reader who reads nothing costs one frame, holds up nobody, and gets the newest frame when it reads again.
func TestSlowReaderSkipsFrames(t *testing.T) { // not parallel: it takes the time
	busy := &atomic.Bool{}
	busy.Store(true)
	f, url := stream(t, busy, strings.Repeat("x", 256<<10))
	slow, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer slow.Close()
	_, err = slow.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)

	skipped := func() (most int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for r := range f.readers {
			most = max(most, r.skipped)
		}
		return most
	}
	labtest.Eventually(t, "the slow reader to be left behind", func() bool { return skipped() > 3 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	left := skipped()
	fast := listenTo(t, url)
	require.GreaterOrEqual(t, len(collect(fast, "state", 4*time.Second)), 6, "the slow reader holds up the fast one")
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.GreaterOrEqual(t, skipped(), left+6)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(8<<20), "a queue would have 10 MiB")

	// Behind what the sockets hold comes the present.
	lines := bufio.NewReaderSize(slow, 1<<20)
	newest := func() uint64 { return (<-fast).n }
	labtest.Eventually(t, "the present", func() bool {
		require.NoError(t, slow.SetReadDeadline(time.Now().Add(10*time.Second)))
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		data, ok := strings.CutPrefix(line, "data: ")
		var body struct{ N uint64 }
		return ok && json.Unmarshal([]byte(data), &body) == nil && body.N+10 > newest()
	})
}

func TestTooManyPagesAreRefused(t *testing.T) {
	t.Parallel()
	_, url := stream(t, &atomic.Bool{}, "")
	for range maxReaders {
		<-listenTo(t, url)
	}
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
}

func TestNobodyReadingCostsNoFrames(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	f := newFrames(func() (any, uint64) { looks.Add(1); return nil, 0 }, func() any { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	f.run(ctx)
	require.Zero(t, looks.Load())
}

// Text can neither end a frame nor begin a tag.
func TestFramesHoldAnyText(t *testing.T) {
	t.Parallel()
	frame := string(encode("state", map[string]string{"title": "a\n\nevent: state\ndata: {}\n\n<img src=x onerror=alert(1)>\u2028&"}))
	require.Equal(t, 1, strings.Count(frame, "\n\n"))
	require.Equal(t, 3, strings.Count(frame, "\n"))
	require.NotContains(t, frame, "<")
	require.NotContains(t, frame, "&")
}
