package dev

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// terminal is a pseudo terminal of that width and what was written to it.
type terminal struct {
	*os.File
	mu      sync.Mutex
	written strings.Builder
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no pseudo terminals here: ", err)
	}
	number, unlocked := uint32(0), int32(0)
	size := struct{ rows, columns, x, y uint16 }{24, columns, 0, 0}
	ioctl(t, master, 0x80045430, unsafe.Pointer(&number))   // TIOCGPTN
	ioctl(t, master, 0x40045431, unsafe.Pointer(&unlocked)) // TIOCSPTLCK
	ioctl(t, master, 0x5414, unsafe.Pointer(&size))         // TIOCSWINSZ
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	tm := &terminal{File: side}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			tm.mu.Lock()
			tm.written.Write(buf[:n])
			tm.mu.Unlock()
			if err != nil {
				return // the other side is closed
			}
		}
	}()
	t.Cleanup(func() {
		_ = side.Close()
		<-done
		_ = master.Close()
	})
	return tm
}

func ioctl(t *testing.T, file *os.File, request uintptr, argument unsafe.Pointer) {
	t.Helper()
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), request, uintptr(argument))
	require.Zero(t, errno)
}

func (tm *terminal) text() string {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return tm.written.String()
}

// shows is what a reader sees: the lines, with each rewritten line as it was written last.
func (tm *terminal) shows() []string {
	lines := strings.Split(strings.ReplaceAll(tm.text(), "\r\n", "\n"), "\n")
	for i, line := range lines {
		parts := strings.Split(line, clearLine)
		lines[i] = parts[len(parts)-1]
	}
	return lines
}

func TestStatusStaysBelowTheLines(t *testing.T) {
	t.Parallel()
	tm := newTerminal(t, 80)
	s := newScreen(tm.File, false)
	require.True(t, s.terminal)
	fmt.Fprintln(s, "starting")
	var n atomic.Int64
	s.show(func() string { return fmt.Sprintf("%d events/s", n.Load()) })
	labtest.Eventually(t, "the status", func() bool { return strings.Join(tm.shows(), "|") == "starting|0 events/s" })
	fmt.Fprintln(s, "CarCreated")
	fmt.Fprintf(s, "CarUpdated\nCarDeleted\n")
	labtest.Eventually(t, "the lines above the status", func() bool {
		return strings.Join(tm.shows(), "|") == "starting|CarCreated|CarUpdated|CarDeleted|0 events/s"
	})
	n.Store(7)
	labtest.Eventually(t, "the status to be rewritten in its place", func() bool {
		return strings.Join(tm.shows(), "|") == "starting|CarCreated|CarUpdated|CarDeleted|7 events/s"
	})
	fmt.Fprint(s, "half a ")
	fmt.Fprintln(s, "line")
	labtest.Eventually(t, "a line in two parts", func() bool { return strings.HasSuffix(strings.Join(tm.shows(), "|"), "|half a line|7 events/s") })
	s.end()
	s.end()
	fmt.Fprintln(s, "stopping")
	labtest.Eventually(t, "no status", func() bool { return strings.HasSuffix(strings.Join(tm.shows(), "|"), "|half a line|stopping|") })
	require.NotContains(t, tm.text(), "\x1b[2m", "no colour was asked for")
}

func TestStatusIsColoredAndCut(t *testing.T) {
	t.Parallel()
	tm := newTerminal(t, 10)
	s := newScreen(tm.File, true)
	defer s.end()
	s.show(func() string { return "①②③④⑤⑥⑦⑧⑨⑩⑪" })
	labtest.Eventually(t, "the status", func() bool { return tm.shows()[0] == dim+"①②③④⑤⑥⑦⑧⑨"+plain })
}

// Into a file or a pipe goes what is written, byte for byte.
func TestNoTerminalNoStatus(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	for _, out := range []*os.File{file, writer, null} {
		s := newScreen(out, true)
		require.False(t, s.terminal)
		s.show(func() string { return "status" })
		fmt.Fprintln(s, "CarCreated")
		s.end()
	}
	require.NoError(t, writer.Close())
	piped, err := io.ReadAll(reader)
	require.NoError(t, err)
	written, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.Equal(t, "CarCreated\n", string(piped))
	require.Equal(t, "CarCreated\n", string(written))
}

func TestOpenIsQuietAboutAMissingBrowser(t *testing.T) {
	t.Parallel()
	Open("no-such-browser", "http://127.0.0.1:1")
	dir := t.TempDir()
	program := filepath.Join(dir, "browser")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho \"$1\" > "+dir+"/opened\necho noise; exit 1\n"), 0o700))
	Open(program, "http://127.0.0.1:3001")
	labtest.Eventually(t, "the page to be opened", func() bool {
		content, _ := os.ReadFile(filepath.Join(dir, "opened"))
		return string(content) == "http://127.0.0.1:3001\n"
	})
}
