package view

import (
	"maps"
	"slices"
	"sync"
	"time"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
)

// shards know how far each shard of the stream is written and read.
type shards struct {
	mu     sync.Mutex
	of     map[string]*shard
	newest time.Time // commit of the newest event on the stream
}

type shard struct {
	end, done uint64
	sequence  string // of done
	marks     []mark // arrivals, one per markGap
}

// mark says that the record of this index, and no later one, had arrived at the time.
type mark struct {
	index uint64
	at    time.Time
}

const (
	markGap  = 250 * time.Millisecond
	maxMarks = 8192
)

func newShards() *shards { return &shards{of: map[string]*shard{}} }

func (s *shards) shard(id string) *shard {
	if s.of[id] == nil {
		s.of[id] = &shard{}
	}
	return s.of[id]
}

// found notes the shards' positions before the view saw any of their records. Records that wait
// there arrived before began.
func (s *shards) found(positions []local.Position, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range positions {
		sh := s.shard(p.Shard)
		sh.end, sh.done = max(sh.end, p.End), max(sh.done, p.Done)
		if sh.sequence == "" {
			sh.sequence = p.SequenceNumber
		}
		if len(sh.marks) == 0 && sh.done < sh.end {
			sh.marks = []mark{{sh.done + 1, began}}
		}
	}
}

// stored notes a record of the stream. commit is zero if it is not known.
func (s *shards) stored(r awslocal.StreamRecord, commit time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shard(r.Shard)
	if n := len(sh.marks); n == 0 || sh.done >= sh.end || r.Arrival.Sub(sh.marks[n-1].at) >= markGap {
		sh.mark(r.Index, r.Arrival)
	}
	sh.end = max(sh.end, r.Index)
	if commit.After(s.newest) {
		s.newest = commit
	}
}

func (s *shards) returned(b local.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shard(b.Shard)
	if b.Failed == 0 {
		return
	}
	last := b.Records[b.Failed-1].SequenceNumber
	if index, ok := awslocal.SequenceIndex(last); ok && index > sh.done {
		sh.done = index
	}
	sh.sequence = last
}

// ends returns the number of the last record of each shard.
func (s *shards) ends() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	ends := map[string]uint64{}
	for id, sh := range s.of {
		ends[id] = sh.end
	}
	return ends
}

// readTo reports whether the consumer is done with all records up to ends.
func (s *shards) readTo(ends map[string]uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, end := range ends {
		if s.of[id].done < end {
			return false
		}
	}
	return true
}

// backlog is what the stream holds at one moment.
type backlog struct {
	shards  []shardState
	waiting int       // records that the consumer is not done with
	oldest  time.Time // arrival of the oldest of them, zero if none waits
	newest  time.Time // commit of the newest event on the stream
}

func (s *shards) backlog(now time.Time) backlog {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := backlog{shards: []shardState{}, newest: s.newest}
	for _, id := range slices.Sorted(maps.Keys(s.of)) {
		sh := s.of[id]
		state := shardState{ID: id, Sequence: sh.sequence, Iterator: "TRIM_HORIZON, nothing read yet", Waiting: sh.end - min(sh.end, sh.done)}
		if sh.sequence != "" {
			state.Iterator = "AFTER_SEQUENCE_NUMBER " + sh.sequence
		}
		if oldest := sh.oldest(); !oldest.IsZero() {
			state.BehindMs = max(0, now.Sub(oldest).Milliseconds())
			b.oldest = older(b.oldest, oldest)
		}
		b.waiting += int(state.Waiting)
		b.shards = append(b.shards, state)
	}
	return b
}

func (s *shard) mark(index uint64, at time.Time) {
	if len(s.marks) >= maxMarks {
		for i := range maxMarks / 2 {
			s.marks[i] = s.marks[2*i]
		}
		s.marks = s.marks[:maxMarks/2]
	}
	s.marks = append(s.marks, mark{index, at})
}

// oldest returns when the oldest record arrived that is not done, at most markGap too early. It
// returns zero if all are done.
func (s *shard) oldest() time.Time {
	for len(s.marks) > 1 && s.marks[1].index <= s.done+1 {
		s.marks = s.marks[1:]
	}
	if s.done >= s.end || len(s.marks) == 0 {
		return time.Time{}
	}
	return s.marks[0].at
}
