package awslocal

import (
	"bufio"
	"errors"
	"io"
)

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
