// Package report sums up the rounds of a `make chaos`. It says what was struck, what became of the
// events, and how long the path took to recover.
//
// In: each judged round. Out: text for a terminal, JSON for programs, an SVG timeline for people. What it keeps of a round is its
// faults and its counts per second, so that a run of hundreds of rounds fits in memory.
package report

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"rds-outbox-demo/lab/judge"
)

// Report is the sum of the rounds so far. The fields are also those of the JSON.
type Report struct {
	Seed    uint64    `json:"seed"`
	Started time.Time `json:"started"` // the timeline's zero; what lies before it is left out of the timeline
	Machine `json:"machine"`

	// What Add sums up. For their meaning see judge.Verdict.
	Rounds         int           `json:"rounds"`
	Events         int           `json:"events"`
	Lost           int           `json:"lost"`
	Reordered      int           `json:"reordered"`
	Wrong          int           `json:"wrong"`
	Duplicates     int           `json:"duplicates"`
	Parked         int           `json:"parked"`
	Hot            int           `json:"hotCars"`
	LongestGap     time.Duration `json:"-"`          // between two arrivals of one round
	Promotions     int           `json:"-"`          // of a standby
	MostDuplicates int           `json:"-"`          // of a round, which has several promotions
	Violations     []Violation   `json:"violations"` // the first maxViolations of all
	ViolationCount int           `json:"violationCount"`

	ended    time.Time // the last thing that was seen to happen
	strikes  []strike
	arrivals perSecond
	commits  perSecond
}

// Machine is where the run was made.
type Machine struct {
	Cores      int    `json:"cores"`
	OS         string `json:"os"`   // GOOS
	Arch       string `json:"arch"` // GOARCH
	Go         string `json:"go"`
	PostgreSQL string `json:"postgresql"` // server_version
}

// Violation is a broken promise of a round.
type Violation struct {
	Round int `json:"round"` // 1, 2, 3 ...
	judge.Violation
}

const (
	maxViolations     = 200 // kept, and in the JSON
	maxTextViolations = 20
)

// strike is one struck fault. Its times are in milliseconds since Report.Started.
type strike struct {
	Kind     string   `json:"kind"`
	Round    int      `json:"round"`
	Start    float64  `json:"startMs"`
	End      float64  `json:"endMs"`
	Recovery *float64 `json:"recoveryMs,omitempty"` // after the end; absent when no event came afterwards
}

// New begins a report of a run on this machine, from now on.
func New(seed uint64) *Report {
	return &Report{Seed: seed, Started: time.Now().UTC(), Violations: []Violation{}, strikes: []strike{}, Machine: Machine{
		Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(),
	}}
}

// Add adds a round and its verdict.
func (r *Report) Add(round judge.Round, v judge.Verdict) {
	r.Rounds++
	r.Events += v.Events
	r.Lost += v.Lost
	r.Reordered += v.Reordered
	r.Wrong += v.Wrong
	r.Duplicates += v.Duplicates
	r.Parked += v.Parked
	r.Hot += v.Hot
	r.LongestGap = max(r.LongestGap, v.LongestGap)
	r.Promotions += len(round.Promotions)
	r.MostDuplicates = max(r.MostDuplicates, v.Duplicates)
	r.ViolationCount += len(v.Violations)
	for _, violation := range v.Violations[:min(len(v.Violations), maxViolations-len(r.Violations))] {
		r.Violations = append(r.Violations, Violation{Round: r.Rounds, Violation: violation})
	}
	for i, w := range round.Windows {
		s := strike{Kind: w.Kind, Round: r.Rounds, Start: milliseconds(w.Start.Sub(r.Started)), End: milliseconds(w.End.Sub(r.Started))}
		if i < len(v.Recoveries) && !v.Recoveries[i].Absent {
			s.Recovery = new(milliseconds(v.Recoveries[i].Took))
		}
		r.strikes = append(r.strikes, s)
		r.saw(w.End)
	}
	for i := range round.Arrivals {
		r.arrivals.add(round.Arrivals[i].Accepted.Sub(r.Started))
		r.saw(round.Arrivals[i].Accepted)
	}
	for i := range round.Rows {
		r.commits.add(round.Rows[i].CreatedAt.Sub(r.Started))
		r.saw(round.Rows[i].CreatedAt)
	}
}

func (r *Report) saw(t time.Time) {
	if t.After(r.ended) {
		r.ended = t
	}
}

// Duration is from Started to the last thing that happened in a round.
func (r *Report) Duration() time.Duration { return max(0, r.ended.Sub(r.Started)) }

// Line is the facts in one line, for the end of the run.
func (r *Report) Line() string {
	return fmt.Sprintf("seed=%d rounds=%d faults=%d kinds=%d events=%d lost=%d reordered=%d wrong=%d duplicates/million=%d gap=%.1fs hot=%d",
		r.Seed, r.Rounds, len(r.strikes), len(r.kinds()), r.Events, r.Lost, r.Reordered, r.Wrong, r.perMillion(), r.LongestGap.Seconds(), r.Hot)
}

// perMillion is the duplicates per million events.
func (r *Report) perMillion() int {
	if r.Events == 0 {
		return 0
	}
	return (r.Duplicates*1_000_000 + r.Events/2) / r.Events
}

// kind is all strikes of one kind of fault.
type kind struct {
	Kind      string   `json:"kind"`
	Struck    int      `json:"struck"`
	Recovered int      `json:"recovered"`               // how often an event came afterwards
	P50       *float64 `json:"recoveryP50Ms,omitempty"` // absent with no recovery
	Max       *float64 `json:"recoveryMaxMs,omitempty"`
}

// kinds are the kinds that struck, sorted.
func (r *Report) kinds() []kind {
	struck, recoveries := map[string]int{}, map[string][]float64{}
	for _, s := range r.strikes {
		struck[s.Kind]++
		if s.Recovery != nil {
			recoveries[s.Kind] = append(recoveries[s.Kind], *s.Recovery)
		}
	}
	all := []kind{}
	for _, name := range slices.Sorted(maps.Keys(struck)) {
		k := kind{Kind: name, Struck: struck[name], Recovered: len(recoveries[name])}
		if took := recoveries[name]; len(took) > 0 {
			slices.Sort(took)
			k.P50, k.Max = &took[(len(took)-1)/2], &took[len(took)-1]
		}
		all = append(all, k)
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
