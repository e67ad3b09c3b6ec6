package awslocal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// openLines opens a file of lines for appending, and calls fn for every line and its offset. What a kill left of a line at the end
// is cut off.
func openLines(path string, fn func(line []byte, offset int64) error) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("opening %s: %w", path, err)
	}
	err = readLines(f, func(line []byte, offset int64) error {
		size = offset + int64(len(line))
		return fn(line, offset)
	})
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("opening %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, size, nil
}

// readLines calls fn for every line, its newline included, and its offset. An end without a newline is no line.
func readLines(r io.Reader, fn func(line []byte, offset int64) error) error {
	offset := int64(0)
	lines := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		} else if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if err := fn(line, offset); err != nil {
			return err
		}
		offset += int64(len(line))
		long = long[:0]
	}
}

// appendWhole writes all of b at the file's end, or nothing: half a line would spoil the next one.
func appendWhole(f *os.File, size int64, b []byte) error {
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Truncate(size))
	}
	return nil
}
