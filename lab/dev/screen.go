package dev

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
	"unsafe"
)

// screen is where `make dev` writes. On a terminal its last line is the status, which stays below whatever else is written; anywhere else
// there is no status, and nothing but what is written.
type screen struct {
	out      io.Writer
	file     *os.File
	terminal bool
	color    bool

	mu     sync.Mutex
	status string
	stop   chan struct{} // of what refreshes it; nil: there is no status
	half   bool          // what was written last did not end its line
}

const (
	refresh    = 500 * time.Millisecond
	clearLine  = "\r\x1b[K"
	dim, plain = "\x1b[2m", "\x1b[0m"
)

func newScreen(file *os.File, color bool) *screen {
	return &screen{out: file, file: file, terminal: columns(file) > 0, color: color}
}

// columns is the width of a terminal, 0 of anything else.
func columns(file *os.File) int {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	switch {
	case errno != 0:
		return 0
	case size.columns == 0: // a terminal that does not say
		return 80
	default:
		return int(size.columns)
	}
}

// Write puts the lines above the status, in one write: a cleared status that is not there yet would flicker.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return s.out.Write(p)
	}
	var b bytes.Buffer
	if !s.half {
		b.WriteString(clearLine)
	}
	b.Write(p)
	if s.half = len(p) > 0 && p[len(p)-1] != '\n'; !s.half {
		b.WriteString(s.line())
	}
	if _, err := s.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// line is the status, cut so that it never breaks: of a broken one only the last part could be cleared.
func (s *screen) line() string {
	text := s.status
	if width := columns(s.file); utf8.RuneCountInString(text) >= width {
		text = string([]rune(text)[:max(0, width-1)])
	}
	if s.color {
		return dim + text + plain
	}
	return text
}

// show shows a status until end, if this is a terminal.
func (s *screen) show(status func() string) {
	if !s.terminal {
		return
	}
	stop := make(chan struct{})
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	go func() {
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			text := status()
			s.mu.Lock()
			if s.stop != stop {
				s.mu.Unlock()
				return
			}
			if text != s.status && !s.half {
				s.status = text
				_, _ = io.WriteString(s.out, clearLine+s.line())
			}
			s.mu.Unlock()
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
}

// end takes the status away.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return
	}
	close(s.stop)
	s.stop = nil
	_, _ = io.WriteString(s.out, clearLine)
}

// Open shows a page in the user's browser. Where that fails, the page's address is on the screen anyway.
func Open(program, url string) {
	cmd := exec.CommandContext(context.Background(), program, url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
