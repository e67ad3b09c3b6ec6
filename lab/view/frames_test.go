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
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// stream serves frames of a state that changes with each look while busy is true.
func stream(t *testing.T, busy *atomic.Bool, padding string) (*frames[map[string]any], string) {
	t.Helper()
	var changed atomic.Uint64
	f := newFrames(func() map[string]any {
		if busy.Load() {
			changed.Add(1)
		}
		return map[string]any{"n": changed.Load(), "padding": padding}
	}, func(one, other map[string]any) bool { return one["n"] == other["n"] }, func() any { return map[string]any{"series": "<b>"} })
	f.writeTimeout = time.Hour // a busy machine may need longer than 20 s for the frames of a test
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

// bubblePage reads frames in a bubble, with its time.
type bubblePage struct {
	http.ResponseWriter
	frames []received
}

func (p *bubblePage) Write(frame []byte) (int, error) {
	if name, _, ok := strings.Cut(strings.TrimPrefix(string(frame), "event: "), "\n"); ok {
		p.frames = append(p.frames, received{at: time.Now(), event: name})
	}
	return len(frame), nil
}

func (p *bubblePage) SetWriteDeadline(time.Time) error { return nil }
func (p *bubblePage) Flush()                           {}

// of returns the frames of a kind.
func (p *bubblePage) of(event string) (all []received) {
	for _, f := range p.frames {
		if f.event == event {
			all = append(all, f)
		}
	}
	return all
}

// watch opens pages, one every pause. After d it returns them and when they were opened.
func watch(t *testing.T, busy bool, pages int, pause, d time.Duration) (all []*bubblePage, opened []time.Time) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		changed := uint64(0)
		f := newFrames(func() uint64 {
			if busy {
				changed++
			}
			return changed
		}, func(one, other uint64) bool { return one == other }, func() any { return "<b>" })
		ctx, cancel := context.WithCancel(t.Context())
		go f.run(ctx)
		for range pages {
			p := &bubblePage{ResponseWriter: httptest.NewRecorder()}
			all, opened = append(all, p), append(opened, time.Now())
			go f.ServeHTTP(p, httptest.NewRequestWithContext(ctx, http.MethodGet, "/live", nil))
			time.Sleep(pause)
		}
		time.Sleep(d)
		cancel()
		synctest.Wait()
	})
	return all, opened
}

func TestAtMostTenFramesASecond(t *testing.T) {
	t.Parallel()
	pages, _ := watch(t, true, 2, 0, 10*time.Second)
	for _, p := range pages {
		require.InDelta(t, 100, len(p.of("state")), 1)
	}
}

func TestOneFrameASecondWhenNothingHappens(t *testing.T) {
	t.Parallel()
	pages, _ := watch(t, false, 1, 0, 10*time.Second)
	require.InDelta(t, 10, len(pages[0].of("state")), 1)
	require.InDelta(t, 10, len(pages[0].of("series")), 1)
}

func TestWhoeverJoinsGetsAFrameAtOnce(t *testing.T) {
	t.Parallel()
	pages, opened := watch(t, false, 4, 1230*time.Millisecond, 0)
	for i, p := range pages {
		require.Equal(t, "state", p.frames[0].event)
		require.LessOrEqual(t, p.frames[0].at.Sub(opened[i]), frameGap)
	}
}

// A reader who reads nothing costs one frame, holds up nobody, and gets the newest frame when it
// reads again.
func TestSlowReaderSkipsFrames(t *testing.T) { // not parallel, because it measures time
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
	held := func() int64 {
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		return int64(memory.HeapAlloc) //nolint:gosec // far below
	}
	before := held()
	left := skipped()
	fast := listenTo(t, url)
	for range 40 { // a slow reader that held up the fast one would hold it up for good
		<-fast
	}
	require.GreaterOrEqual(t, skipped(), left+6)
	// Frames that are made between the collection and the look count as well. A queue of 10 MiB would stay, and grow.
	labtest.Eventually(t, "the memory without those of the moment", func() bool { return held()-before < 8<<20 })

	// After the frames that the sockets hold comes the present one.
	lines := bufio.NewReaderSize(slow, 1<<20)
	newest := func() uint64 { return (<-fast).n }
	labtest.Eventually(t, "the present", func() bool {
		require.NoError(t, slow.SetReadDeadline(time.Now().Add(labtest.Patience)))
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
	f := newFrames(func() int { looks.Add(1); return 0 }, func(one, other int) bool { return one == other }, func() any { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	f.run(ctx)
	require.Zero(t, looks.Load())
}

// A text can neither end a frame nor begin a tag.
func TestFramesHoldAnyText(t *testing.T) {
	t.Parallel()
	frame := string(encode("state", map[string]string{"title": "a\n\nevent: state\ndata: {}\n\n<img src=x onerror=alert(1)>\u2028&"}))
	require.Equal(t, 1, strings.Count(frame, "\n\n"))
	require.Equal(t, 3, strings.Count(frame, "\n"))
	require.NotContains(t, frame, "<")
	require.NotContains(t, frame, "&")
}

// A frame is sent because it shows something new, and not because time has passed.
func TestFramesDifferByWhatTheyShow(t *testing.T) {
	t.Parallel()
	one := frame{At: "1", Slot: &slotState{Name: "a"}, Events: []eventState{{Ms: map[string]float64{"bus": 1}}}}
	same := frame{At: "2", Slot: &slotState{Name: "a"}, Events: []eventState{{Ms: map[string]float64{"bus": 1}}}}
	require.True(t, one.same(same))
	same.Events[0].Ms["bus"] = 2
	require.False(t, one.same(same))
}
