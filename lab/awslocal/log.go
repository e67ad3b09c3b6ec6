package awslocal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// appendLog is a file that only grows by whole records. The segments of shards, the queues and the journal are such files. The records are
// frames or lines, and a kill tears only the last one.
type appendLog struct {
	*os.File       // for reading. append writes the records
	size     int64 // bytes of whole records
	broken   error // a failed write that could not be taken back
}

// openLog opens the file at path, which it makes if it is absent. scan reads the file and returns how many bytes of it are whole records.
// What a kill left after them is cut off.
func openLog(path string, scan func(io.Reader) (whole int64, err error)) (*appendLog, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	l := &appendLog{File: file}
	if l.size, err = scan(file); err == nil {
		err = file.Truncate(l.size)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, errors.Join(err, file.Close()))
	}
	return l, nil
}

// openLines opens a log of lines, and calls fn for every line and its offset.
func openLines(path string, fn func(line []byte, offset int64) error) (*appendLog, error) {
	return openLog(path, func(r io.Reader) (size int64, err error) {
		err = readLines(r, func(line []byte, offset int64) error {
			size = offset + int64(len(line))
			return fn(line, offset)
		})
		return size, err
	})
}

// readLines calls fn for every line, its newline included, and its offset. An end without a newline is no line.
func readLines(r io.Reader, fn func(line []byte, offset int64) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	for offset := int64(0); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := fn(line, offset); err != nil {
			return err
		}
		offset += int64(len(line))
	}
}

// append writes all records of b with one write, or none of them. Half of one would spoil the next.
func (l *appendLog) append(b []byte) error {
	if l.broken != nil {
		return l.broken
	}
	if _, err := l.Write(b); err != nil {
		if cut := l.Truncate(l.size); cut != nil {
			l.broken = fmt.Errorf("%s is unusable until a restart: %w", l.Name(), errors.Join(err, cut))
		}
		return fmt.Errorf("writing %s: %w", l.Name(), err)
	}
	l.size += int64(len(b))
	return nil
}
