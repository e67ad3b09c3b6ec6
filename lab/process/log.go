package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
)

const (
	// maxLog bounds a log file. 500 cars a second write half a gigabyte in an hour.
	maxLog = 64 << 20
	// maxLine bounds what is remembered of a line.
	maxLine = 64 << 10
)

// Log is a file of at most 64 MiB. The file before it is kept as <path>.1, and what is older is gone.
type Log struct {
	path string
	max  int64
	said func(line []byte) // called with each line, while the lock is held. It may be nil

	mu   sync.Mutex
	file *os.File
	size int64
	line []byte // the line that has not ended yet
	last []byte
}

// OpenLog begins a new file.
func OpenLog(path string) (*Log, error) {
	l := &Log{path: path, max: maxLog}
	return l, l.begin()
}

func (l *Log) begin() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotating the log: %w", err)
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	if l.file != nil {
		err = l.file.Close()
	}
	l.file, l.size = file, 0
	return err
}

// Write writes p, which may begin and end within a line. A new file begins with a whole line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := 0
	if l.size > 0 && l.size+int64(len(p)) > l.max {
		if len(l.line) > 0 {
			var err error
			if done, err = l.write(p[:bytes.IndexByte(p, '\n')+1]); err != nil {
				return done, err
			}
		}
		if len(l.line) == 0 {
			if err := l.begin(); err != nil {
				return done, err
			}
		}
	}
	n, err := l.write(p[done:])
	return done + n, err
}

func (l *Log) write(p []byte) (int, error) {
	n, err := l.file.Write(p)
	l.size += int64(n)
	for rest := p[:n]; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, part[:min(len(part), maxLine-len(l.line))]...)
		if rest = after; ended {
			l.endLine()
		}
	}
	return n, err
}

func (l *Log) endLine() {
	if len(l.line) > 0 {
		l.last = append(l.last[:0], l.line...)
		if l.said != nil {
			l.said(l.line)
		}
	}
	l.line = l.line[:0]
}

// LastLine returns the last line that is not empty, whether it has ended or not.
func (l *Log) LastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		return string(l.line)
	}
	return string(l.last)
}

// Close closes the file. A Write after it fails.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
