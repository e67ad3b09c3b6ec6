package report

import (
	"math"
	"time"
)

// perSecond counts things by the second in which they happened.
type perSecond []int

// maxTimeline bounds memory when a clock is far off.
const maxTimeline = 7 * 24 * time.Hour

func (p *perSecond) add(since time.Duration) {
	if since < 0 || since >= maxTimeline {
		return
	}
	second := int(since / time.Second)
	for len(*p) <= second {
		*p = append(*p, 0)
	}
	(*p)[second]++
}

// maxBuckets is how finely the timeline is drawn, however long the run was.
const maxBuckets = 600

// bucketSeconds is the width of the timeline's buckets.
func (r *Report) bucketSeconds() int {
	seconds := max(len(r.arrivals), len(r.commits))
	for _, width := range []int{1, 2, 5, 10, 15, 30, 60} {
		if seconds <= width*maxBuckets {
			return width
		}
	}
	return (seconds + maxBuckets - 1) / maxBuckets
}

// rates are the counts per second, averaged over buckets and rounded to tenths: as many as the longer of the two has.
func (r *Report) rates(p perSecond) []float64 {
	width := r.bucketSeconds()
	all := make([]float64, (max(len(r.arrivals), len(r.commits))+width-1)/width)
	for second, n := range p {
		all[second/width] += float64(n)
	}
	for i := range all {
		all[i] = math.Round(10*all[i]/float64(width)) / 10
	}
	return all
}
