package awslocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// BusEvent is one event that a bus accepted. The journal holds it as one JSON line.
type BusEvent struct {
	ID          string          `json:"eventId"` // the EventId that PutEvents answered with
	Bus         string          `json:"eventBus"`
	Accepted    time.Time       `json:"acceptedAt"` // UTC, nanoseconds
	Source      string          `json:"source"`
	DetailType  string          `json:"detailType"`
	Time        time.Time       `json:"time"` // as sent, milliseconds; Accepted if none was sent
	Resources   []string        `json:"resources,omitempty"`
	TraceHeader string          `json:"traceHeader,omitempty"`
	Detail      json.RawMessage `json:"detail"` // as sent, but for space between its tokens
}

// The journal is bus.jsonl. Once that is big enough it becomes bus.1.jsonl and replaces the one
// before.
const (
	journalFile = "bus.jsonl"
	journalOld  = "bus.1.jsonl"
)

type journal struct {
	dir      string
	maxBytes int64
	onEvent  func(BusEvent)

	mu  sync.Mutex
	log *appendLog
	buf bytes.Buffer
}

func openJournal(dir string, maxBytes int64, onEvent func(BusEvent)) (*journal, error) {
	j := &journal{dir: dir, maxBytes: maxBytes, onEvent: onEvent}
	return j, j.begin()
}

func (j *journal) begin() (err error) {
	j.log, err = openLines(filepath.Join(j.dir, journalFile), func([]byte, int64) error { return nil })
	return err
}

// add writes the events with one write and shows them to onEvent. After an error none of them is in the journal.
func (j *journal) add(events []BusEvent) error {
	if len(events) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log.size >= j.maxBytes {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	j.buf.Reset()
	lines := json.NewEncoder(&j.buf)
	lines.SetEscapeHTML(false) // it would rewrite <, > and & inside Detail
	for _, e := range events {
		if err := lines.Encode(e); err != nil {
			return fmt.Errorf("encoding an event: %w", err)
		}
	}
	if err := j.log.append(j.buf.Bytes()); err != nil {
		return err
	}
	if j.onEvent != nil {
		for _, e := range events {
			j.onEvent(e)
		}
	}
	return nil
}

func (j *journal) rotate() error {
	if err := os.Rename(filepath.Join(j.dir, journalFile), filepath.Join(j.dir, journalOld)); err != nil {
		return fmt.Errorf("rotating the bus journal: %w", err)
	}
	return errors.Join(j.log.Close(), j.begin())
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Close()
}

// ReadBus calls fn for every event that the journal in dir (Config.Dir) still has, in the order of
// acceptance. It can run while a Server writes, and sees the events accepted before it began. fn's
// error ends it and is returned. No journal means no events.
func ReadBus(dir string, fn func(BusEvent) error) error {
	return readBus(dir, nil, fn)
}

// readBus decodes only the wanted lines, because decoding takes most of the time. With nil all are.
func readBus(dir string, wanted func(line []byte) bool, fn func(BusEvent) error) error {
	files, err := openJournals(dir)
	if err != nil {
		return fmt.Errorf("opening the bus journal: %w", err)
	}
	for _, f := range files {
		if err == nil {
			err = readEvents(f, wanted, func(e BusEvent, _ int64) error { return fn(e) })
		}
		err = errors.Join(err, f.Close())
	}
	return err
}

// readEvents calls fn for the event of each wanted line of f, and the offset after it.
func readEvents(f *os.File, wanted func(line []byte) bool, fn func(e BusEvent, end int64) error) error {
	return readLines(f, func(line []byte, at int64) error {
		if wanted != nil && !wanted(line) {
			return nil
		}
		var e BusEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("reading a line of %s: %w", f.Name(), err)
		}
		return fn(e, at+int64(len(line)))
	})
}

// openJournals opens the old and the current file. A rotation between the two would make the middle
// of the journal fall out. So the current file must still be current when the old one is open.
func openJournals(dir string) ([]*os.File, error) {
	for {
		current, err := os.Open(filepath.Join(dir, journalFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		old, err := os.Open(filepath.Join(dir, journalOld))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, current.Close())
		}
		opened, err1 := current.Stat()
		named, err2 := os.Stat(filepath.Join(dir, journalFile))
		if err1 == nil && err2 == nil && os.SameFile(opened, named) {
			if old == nil {
				return []*os.File{current}, nil
			}
			return []*os.File{old, current}, nil
		}
		_ = current.Close()
		if old != nil {
			_ = old.Close()
		}
	}
}

// ReadBusFrom is ReadBus for a journal that never rotates (a huge Config.JournalBytes), from byte offset on. fn also gets the offset
// after its event. The next call goes on after the last one, which is returned.
func ReadBusFrom(dir string, offset int64, fn func(e BusEvent, end int64) error) (next int64, err error) {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return offset, fmt.Errorf("opening the bus journal: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset, fmt.Errorf("reading the bus journal: %w", err)
	}
	next = offset
	err = readEvents(f, nil, func(e BusEvent, end int64) error {
		next = offset + end
		return fn(e, next)
	})
	return next, err
}

// BusEnd returns an offset up to which a journal that never rotates is written for good, as ReadBusFrom counts. Every event before it was
// accepted before the call. While a line is half written it is 0, because a kill would cut that line off and put others in its place.
func BusEnd(dir string) (offset int64, err error) {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return 0, fmt.Errorf("opening the bus journal: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil || last[0] != '\n' {
		return 0, err
	}
	return info.Size(), nil
}
