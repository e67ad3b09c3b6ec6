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

// series is what the plots show. It has one point for each of the last seconds.
type series struct {
	mu       sync.Mutex
	points   map[int64]*point
	commitOf map[uuid.UUID]time.Time // of the events in invocations under way
}

func newSeries() *series {
	return &series{points: map[int64]*point{}, commitOf: map[uuid.UUID]time.Time{}}
}

type point struct {
	committed, published int64
	samples              []float64 // ms; nil once the percentiles are there
	p50, p99             *float64
}

// plots is the series as /live has it.
type plots struct {
	Seconds   []int64    `json:"seconds"`
	Committed []int64    `json:"committed"`
	Published []int64    `json:"published"`
	P50       []*float64 `json:"p50"`
	P99       []*float64 `json:"p99"`
}

func (s *series) at(second int64) *point {
	p := s.points[second]
	if p == nil {
		if len(s.points) > 2*maxPoints { // nobody has asked for the plots
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

// commits notes the rows of each second, as they were counted last.
func (s *series) commits(rows map[int64]int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, n := range rows {
		if at > now.Unix()-maxPoints && at <= now.Unix() {
			s.at(at).committed = n
		}
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

// publish notes an entry on the bus. The latency of an event's first one counts, if its commit is known.
func (s *series) publish(now time.Time, id uuid.UUID, first bool, accepted time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(now.Unix())
	p.published++
	if commit, ok := s.commitOf[id]; ok && first && p.p50 == nil && len(p.samples) < maxSamples {
		latency := max(accepted.Sub(commit), time.Microsecond) // two clocks
		p.samples = append(p.samples, millis(latency))
	}
}

// plots closes the seconds that are over.
func (s *series) plots(began, now time.Time) plots {
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
	all := plots{[]int64{}, []int64{}, []int64{}, []*float64{}, []*float64{}}
	for at := first; at < now.Unix(); at++ {
		p := s.points[at]
		if p == nil {
			p = &point{}
		}
		all.Seconds = append(all.Seconds, at)
		all.Committed, all.Published = append(all.Committed, p.committed), append(all.Published, p.published)
		all.P50, all.P99 = append(all.P50, p.p50), append(all.P99, p.p99)
	}
	return all
}

func percentile(sorted []float64, p int) *float64 {
	value := sorted[(len(sorted)-1)*p/100]
	return &value
}
