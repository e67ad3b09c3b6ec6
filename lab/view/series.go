package view

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/local"
)

const (
	maxPoints  = 300
	maxSamples = 4096 // latencies of one second
)

// series is what the timeline shows of the events. It has one point for each of the last seconds.
type series struct {
	mu       sync.Mutex
	points   map[int64]*point
	commitOf map[uuid.UUID]time.Time // of the events in invocations under way
}

func newSeries() *series {
	return &series{points: map[int64]*point{}, commitOf: map[uuid.UUID]time.Time{}}
}

type point struct {
	passed   [6]int64  // how many passed each hop
	samples  []float64 // ms; nil once the percentiles are there
	p50, p99 *float64
}

// timeline is event series of /live. Each of its lists but Faults has one entry for each second.
type timeline struct {
	Seconds []int64     `json:"seconds"`
	Passed  [6][]int64  `json:"passed"` // each hop: requests, rows, reads by the relay, records, consumed records, entries
	P50     []*float64  `json:"p50"`    // ms from commit to bus
	P99     []*float64  `json:"p99"`
	Faults  []faultSpan `json:"faults"`
}

func (s *series) at(second int64) *point {
	p := s.points[second]
	if p == nil {
		if len(s.points) > 2*maxPoints { // nobody has asked for the timeline for long
			for at := range s.points {
				if at < second-maxPoints {
					delete(s.points, at)
				}
			}
		}
		p = &point{}
		s.points[second] = p
	}
	return p
}

// commits notes the latest counts of the rows of each second.
func (s *series) commits(rows map[int64]int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, n := range rows {
		if at > now.Unix()-maxPoints && at <= now.Unix() {
			s.at(at).passed[1] = n
		}
	}
}

// pass notes how many passed a hop at a time in the past. It ignores a time that the timeline does
// not show, which would only cost memory.
func (s *series) pass(now time.Time, hop int, at time.Time, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := min(at.Unix(), now.Unix()); second > now.Unix()-maxPoints {
		s.at(second).passed[hop-1] += int64(n)
	}
}

func (s *series) invoked(b local.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range b.Records {
		if r.Event != nil && !r.Event.Commit.Time.IsZero() {
			s.commitOf[r.Event.Row.ID] = r.Event.Commit.Time
		}
	}
}

func (s *series) returned(b local.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range b.Records {
		if r.Event != nil {
			delete(s.commitOf, r.Event.Row.ID)
		}
	}
}

// publish notes an entry on the bus. Only the latency of an event's first entry counts, if the
// event's commit is known.
func (s *series) publish(now time.Time, id uuid.UUID, first bool, accepted time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(now.Unix())
	p.passed[5]++
	if commit, ok := s.commitOf[id]; ok && first && p.p50 == nil && len(p.samples) < maxSamples {
		latency := max(accepted.Sub(commit), time.Microsecond) // two clocks may differ
		p.samples = append(p.samples, millis(latency))
	}
}

// timeline closes the seconds that are over.
func (s *series) timeline(began, now time.Time) timeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := max(began.Unix(), now.Unix()-maxPoints)
	for at, p := range s.points {
		switch {
		case at < first:
			delete(s.points, at)
		case at < now.Unix() && len(p.samples) > 0:
			slices.Sort(p.samples)
			p.p50, p.p99 = percentile(p.samples, 50), percentile(p.samples, 99)
			p.samples = nil
		}
	}
	n := max(0, now.Unix()-first)
	all := timeline{Seconds: make([]int64, n), P50: make([]*float64, n), P99: make([]*float64, n)}
	for hop := range all.Passed {
		all.Passed[hop] = make([]int64, n)
	}
	for i := range n {
		all.Seconds[i] = first + i
		p := s.points[first+i]
		if p == nil {
			continue
		}
		for hop, passed := range p.passed {
			all.Passed[hop][i] = passed
		}
		all.P50[i], all.P99[i] = p.p50, p.p99
	}
	return all
}

func percentile(sorted []float64, p int) *float64 {
	value := sorted[(len(sorted)-1)*p/100]
	return &value
}
