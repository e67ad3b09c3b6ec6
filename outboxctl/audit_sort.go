package outboxctl

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
)

// auditRow is what an audit looks at of a row of outbox.
type auditRow struct {
	EventID          uuid.UUID
	AggregateType    string
	AggregateID      string
	AggregateVersion int64
	CreatedAt        time.Time
	Passed           bool // by the slot, see confirmedBySlot
}

// order is the order of both streams: aggregates by their bytes, which is COLLATE "C" in the database, and of each the newest version
// first, so that at every event it is known when later ones arrived.
func (r auditRow) order(other auditRow) int {
	return cmp.Or(
		cmp.Compare(r.AggregateType, other.AggregateType),
		cmp.Compare(r.AggregateID, other.AggregateID),
		cmp.Compare(other.AggregateVersion, r.AggregateVersion),
		slices.Compare(r.EventID[:], other.EventID[:]),
	)
}

func (e busEntry) row() auditRow {
	return auditRow{EventID: e.EventID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, AggregateVersion: e.AggregateVersion, CreatedAt: e.CreatedAt}
}

// order puts the arrivals of one event one after the other, the first one first, and equal ones side by side.
func (e busEntry) order(other busEntry) int {
	return cmp.Or(
		e.row().order(other.row()),
		e.Arrived.Compare(other.Arrived),
		cmp.Compare(e.BusID, other.BusID),
		cmp.Compare(e.Replay, other.Replay),
	)
}

func sortByArrival(entries []busEntry) {
	slices.SortFunc(entries, func(a, b busEntry) int { return cmp.Or(a.Arrived.Compare(b.Arrived), cmp.Compare(a.BusID, b.BusID)) })
}

// spool keeps values in a file without a name: it is gone with the process, whatever happens. Nothing of the events but ids is in it.
type spool struct{ file *os.File }

func newSpool() (*spool, error) {
	file, err := os.CreateTemp("", "outboxctl-")
	if err == nil {
		err = os.Remove(file.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	return &spool{file}, nil
}

func (s *spool) close() error { return s.file.Close() }

// section is a part of the spool.
type section struct{ start, length int64 }

// write appends a section with the values that produce yields.
func write[T any](s *spool, produce func(add func(T) error) error) (section, error) {
	start, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return section{}, fmt.Errorf("writing a temporary file: %w", err)
	}
	buffer := bufio.NewWriterSize(s.file, 1<<20)
	encoder := gob.NewEncoder(buffer)
	err = produce(func(value T) error {
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("writing a temporary file: %w", err)
		}
		return nil
	})
	if err != nil {
		return section{}, err
	}
	if err := buffer.Flush(); err != nil {
		return section{}, fmt.Errorf("writing a temporary file: %w", err)
	}
	end, err := s.file.Seek(0, io.SeekCurrent)
	return section{start, end - start}, err
}

// read yields a section's values.
func read[T any](s *spool, r section) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		decoder := gob.NewDecoder(bufio.NewReaderSize(io.NewSectionReader(s.file, r.start, r.length), 64<<10))
		for {
			var value T
			err := decoder.Decode(&value)
			if errors.Is(err, io.EOF) || !yield(value, err) || err != nil {
				return
			}
		}
	}
}

// maxInMemory is how many entries are sorted in memory: some 20 MB. More become sorted runs on disk.
const maxInMemory = 50_000

// sorter sorts any number of entries in bounded memory.
type sorter struct {
	spool  *spool
	max    int
	memory []busEntry
	runs   []section
}

func (s *sorter) add(e busEntry) error {
	if s.memory = append(s.memory, e); len(s.memory) < s.max {
		return nil
	}
	return s.spill()
}

func (s *sorter) spill() error {
	slices.SortFunc(s.memory, busEntry.order)
	written, err := write(s.spool, func(add func(busEntry) error) error {
		for _, e := range s.memory {
			if err := add(e); err != nil {
				return err
			}
		}
		return nil
	})
	s.memory, s.runs = s.memory[:0], append(s.runs, written)
	return err
}

// sorted yields every entry that was added, in order. Call it once, after the last add.
func (s *sorter) sorted() iter.Seq2[busEntry, error] {
	return func(yield func(busEntry, error) bool) {
		if err := s.spill(); err != nil {
			yield(busEntry{}, err)
			return
		}
		var heads sources
		for _, r := range s.runs {
			next, stop := iter.Pull2(read[busEntry](s.spool, r))
			defer stop()
			head := &source{next: next}
			if ok := head.advance(); ok {
				heads = append(heads, head)
			}
		}
		heap.Init(&heads)
		for len(heads) > 0 {
			head := heads[0]
			if !yield(head.entry, head.err) || head.err != nil {
				return
			}
			if head.advance() {
				heap.Fix(&heads, 0)
			} else {
				heap.Pop(&heads)
			}
		}
	}
}

// source is a run that is being merged.
type source struct {
	next  func() (busEntry, error, bool)
	entry busEntry
	err   error
}

func (s *source) advance() (ok bool) {
	s.entry, s.err, ok = s.next()
	return ok
}

// sources is a heap: the source with the lowest entry is first, or one that failed.
type sources []*source

func (s sources) Len() int { return len(s) }
func (s sources) Less(i, j int) bool {
	return s[i].err != nil || s[j].err == nil && s[i].entry.order(s[j].entry) < 0
}
func (s sources) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)   { *s = append(*s, x.(*source)) }
func (s *sources) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}
