package awslocal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"
	"time"
)

// shardLog holds the records of one shard on disk, in segments, the newest of which grows. Whole
// segments are deleted when they are too old or when the shard is too big, and the trim horizon
// moves up. A record may outlive its retention until its segment is deleted.
type shardLog struct {
	dir       string
	retention time.Duration
	maxBytes  int64

	mu       sync.Mutex
	segments []*segment // oldest first, at least one
	log      *appendLog // the newest segment's file
	total    int64      // bytes of all segments
	next     uint64     // index of the next record. The first is 1
	last     int64      // arrival of the newest record
	buf      []byte
}

// openShardLog reads every segment once, so damage shows now and not in the middle of an answer.
func openShardLog(dir string, retention time.Duration, maxBytes, now int64) (*shardLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a shard's folder: %w", err)
	}
	segments, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	l := &shardLog{dir: dir, retention: retention, maxBytes: maxBytes, segments: segments, next: 1}
	for i, s := range segments {
		if i > 0 && s.base != l.next {
			return nil, fmt.Errorf("segment %s does not follow the one before, which ends at %d; remove the state folder to start anew", s.path, l.next)
		}
		if l.next, err = l.load(s, i == len(segments)-1); err != nil {
			return nil, err
		}
		l.total += s.size
		l.last = max(l.last, s.last)
	}
	if len(segments) == 0 {
		return l, l.roll()
	}
	return l, l.trim(now)
}

// load reads a whole segment. Only the newest is opened for appending, and only there a kill may have torn the last record.
func (l *shardLog) load(s *segment, newest bool) (next uint64, err error) {
	if newest {
		l.log, err = openLog(s.path, func(r io.Reader) (int64, error) {
			next, err = s.load(r, true)
			return s.size, err
		})
		return next, err
	}
	file, err := os.Open(s.path)
	if err != nil {
		return 0, fmt.Errorf("opening a segment: %w", err)
	}
	next, err = s.load(file, false)
	return next, errors.Join(err, file.Close())
}

func (l *shardLog) newest() *segment { return l.segments[len(l.segments)-1] }

// roll begins a new segment.
func (l *shardLog) roll() error {
	s := &segment{path: segmentPath(l.dir, l.next), base: l.next}
	log, err := openLog(s.path, func(r io.Reader) (int64, error) {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			return 0, errors.Join(errors.New("the segment to begin is there already"), err) // to cut it would drop its records
		}
		return 0, nil
	})
	if err != nil {
		return err
	}
	if l.log != nil {
		err = l.log.Close()
	}
	l.log, l.segments = log, append(l.segments, s)
	return err
}

// trim drops the oldest segments that are too old or too much. l.mu is held.
func (l *shardLog) trim(now int64) error {
	cutoff := now - l.retention.Milliseconds()
	if newest := l.newest(); newest.size > 0 && newest.last < cutoff {
		if err := l.roll(); err != nil {
			return err
		}
	}
	for len(l.segments) > 1 {
		oldest := l.segments[0]
		if l.total <= l.maxBytes && oldest.last >= cutoff {
			return nil
		}
		if err := os.Remove(oldest.path); err != nil {
			return fmt.Errorf("dropping a segment: %w", err)
		}
		l.total -= oldest.size
		l.segments = l.segments[1:]
	}
	return nil
}

// append stores the records behind each other with one write. It returns the first one's index and the arrival time that they all
// share, which never runs backwards even if the clock does. After an error none of them is stored.
func (l *shardLog) append(now int64, records []putRecord) (first uint64, arrival int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.trim(now); err != nil {
		return 0, 0, err
	}
	if l.newest().size >= l.maxBytes/16 {
		if err := l.roll(); err != nil {
			return 0, 0, err
		}
	}
	s := l.newest()
	arrival = max(now, l.last)
	if cap(l.buf) > 1<<20 {
		l.buf = nil // one huge batch must not pin its memory in every shard
	}
	l.buf = l.buf[:0]
	for _, r := range records {
		l.buf = appendFrame(l.buf, arrival, r.PartitionKey, r.Data)
	}
	if err := l.log.append(l.buf); err != nil {
		return 0, 0, err
	}
	first, l.last = l.next, arrival
	for _, r := range records {
		size := int64(frameHeader + recordHeader + len(r.PartitionKey) + len(r.Data))
		s.add(l.next, arrival, size)
		l.total += size
		l.next++
	}
	return first, arrival, nil
}

// end returns the index after the newest record.
func (l *shardLog) end() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// open opens the segment that holds the record index, or the oldest record if that is trimmed, at
// the last mark before it. The file is opened under the lock, so trim cannot remove it in between,
// and an open file outlives its removal. It returns the index of the first record in the section,
// and of the record to begin with. It returns io.EOF if that record is not written yet.
func (l *shardLog) open(now int64, index uint64) (f *os.File, section io.Reader, first, begin uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.trim(now); err != nil {
		return nil, nil, 0, 0, err
	}
	begin = max(index, l.segments[0].base)
	if begin >= l.next {
		return nil, nil, 0, begin, io.EOF
	}
	s := l.segments[sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > begin })-1]
	at := s.marks[sort.Search(len(s.marks), func(i int) bool { return s.marks[i].index > begin })-1]
	if f, err = os.Open(s.path); err != nil {
		return nil, nil, 0, 0, fmt.Errorf("opening a segment: %w", err)
	}
	// The size is fixed now, because what a writer adds meanwhile may be half-written.
	return f, io.NewSectionReader(f, at.offset, s.size-at.offset), at.index, begin, nil
}

// read calls visit for the records from index on, oldest first, until visit returns false or nothing is left. What is trimmed is
// jumped over. It returns the index of the record that visit refused, or that is not written yet.
func (l *shardLog) read(now int64, index uint64, visit func(stored) (bool, error)) (next uint64, err error) {
	for next = index; ; {
		file, section, first, begin, err := l.open(now, next)
		if errors.Is(err, io.EOF) {
			return begin, nil
		} else if err != nil {
			return next, err
		}
		var more bool
		next, more, err = readSection(section, first, begin, visit)
		if err := errors.Join(err, file.Close()); err != nil || !more {
			return next, err
		}
	}
}

// readSection visits the records from begin on of a section that begins with record first.
func readSection(section io.Reader, first, begin uint64, visit func(stored) (bool, error)) (next uint64, more bool, err error) {
	frames := newFrames(section)
	for next = first; ; next++ {
		rec, _, err := frames.next()
		if errors.Is(err, io.EOF) {
			return next, true, nil
		} else if err != nil {
			return next, false, fmt.Errorf("reading record %d: %w", next, err)
		}
		if next < begin {
			continue
		}
		rec.index = next
		if more, err := visit(rec); err != nil || !more {
			return next, false, err
		}
	}
}

// at returns the index of the first record that arrived at or after the time, or the end if there
// is none.
func (l *shardLog) at(now, arrival int64) (uint64, error) {
	l.mu.Lock()
	start := l.next
	if i := slices.IndexFunc(l.segments, func(s *segment) bool { return s.size > 0 && s.last >= arrival }); i >= 0 {
		start = l.segments[i].base
	}
	l.mu.Unlock()
	return l.read(now, start, func(rec stored) (bool, error) { return rec.arrival < arrival, nil })
}

func (l *shardLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Close()
}
