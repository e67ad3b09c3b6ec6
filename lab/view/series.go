package view

import (
	"math"
	"slices"
	"time"
)

const (
	meterSlot  = 100 * time.Millisecond
	meterSlots = 20
)

// meter is a rate over the last two seconds, and a sum.
type meter struct {
	slots [meterSlots]int64
	slot  int64 // number of the newest
	total int64
}

func (m *meter) turn(now time.Time) {
	slot := now.UnixNano() / int64(meterSlot)
	for i := max(m.slot+1, slot-meterSlots+1); i <= slot; i++ {
		m.slots[i%meterSlots] = 0
	}
	m.slot = max(m.slot, slot)
}

func (m *meter) add(now time.Time, n int) {
	m.turn(now)
	m.slots[m.slot%meterSlots] += int64(n)
	m.total += int64(n)
}

// rate is per second, with one decimal.
func (m *meter) rate(now time.Time) float64 {
	return math.Round(float64(m.recent(now))*10/(meterSlots*meterSlot.Seconds())) / 10
}

func (m *meter) recent(now time.Time) (sum int64) {
	m.turn(now)
	for _, n := range m.slots {
		sum += n
	}
	return sum
}

const (
	maxPoints  = 300
	maxSamples = 4096 // latencies of one second
)

// series is what the plots show: one point for each of the last seconds.
type series struct {
	points map[int64]*point
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
	if s.points == nil {
		s.points = map[int64]*point{}
	}
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
	for at, n := range rows {
		if at > now.Unix()-maxPoints && at <= now.Unix() {
			s.at(at).committed = n
		}
	}
}

// publish notes an entry on the bus; latency is that of one which came for the first time.
func (s *series) publish(now time.Time, latency time.Duration) {
	p := s.at(now.Unix())
	p.published++
	if latency > 0 && p.p50 == nil && len(p.samples) < maxSamples {
		p.samples = append(p.samples, math.Round(float64(latency.Microseconds())/10)/100)
	}
}

// plots closes the seconds that are over.
func (s *series) plots(began, now time.Time) plots {
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
