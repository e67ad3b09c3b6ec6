// Package faults is the list of faults. Each is a way to break a path of package local while it
// runs, and to mend it again.
//
// In: a path. Out: its faults, each with its name, its station, its texts and what it does. The
// live view makes its switches of the whole list. `make chaos` makes its trials of the same faults
// and of the same rules for the AWS listener, at rates of its own.
package faults

import (
	"context"
	"slices"
	"sync"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
)

// Fault is one way to break a path. It is safe for concurrent use, but two strikes at the same time would undo each other.
type Fault struct {
	Name  string `json:"name"`
	Label string `json:"label"` // for a button
	State string `json:"state"` // what is so while it is in force, or after it has struck once
	Count Count  `json:"count"` // what its strikes are
	Hop   int    `json:"hop"`   // the station that it strikes, 1 to 6
	Text  string `json:"text"`  // what it does here, in one sentence
	AWS   string `json:"aws"`   // what happens on AWS in that case, in one sentence
	Stops bool   `json:"stops"` // nothing passes the station while the fault is in force
	act   `json:"-"`
}

// Count is the noun of a number of strikes, such as "1 call refused" and "2 calls refused".
type Count struct {
	One  string `json:"one"`
	Many string `json:"many"`
}

// act is what a fault does to a path. Its errors are a local.NotNowError when the path has to be in another state first.
type act struct {
	// Can returns an error when what the fault would break is not this program's own.
	Can func() error
	// Strike breaks the path.
	Strike func(context.Context) error
	// Mend undoes Strike. It is nil where the fault strikes once.
	Mend func(context.Context) error
	// InForce reports whether the path is broken in this way now, whoever has broken or mended it.
	InForce func() bool

	// Rules of the local AWS listener are the fault. It is nil where the fault strikes a process or what that holds.
	Rules []awslocal.Fault
	// Struck returns how many calls and entries the rules have struck since Strike. It is nil without rules.
	Struck func() int
}

// Once reports whether the fault strikes once. It is then never in force, and there is nothing to mend.
func (f *Fault) Once() bool { return f.Mend == nil }

func always() error { return nil }
func never() bool   { return false }

// byRules is a fault that is rules of the local AWS listener in this process.
func byRules(p *local.Path, service local.Service, rules ...awslocal.Fault) act {
	var mu sync.Mutex
	var active []*awslocal.Active
	return act{
		Rules: rules,
		Can:   func() error { return p.CanBreak(service) },
		Strike: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			active = nil
			for _, rule := range rules {
				rule.Seed = 1 // the first draw strikes at 0.3, so a person soon sees what the fault does
				active = append(active, p.AWS.Faults().Add(rule))
			}
			return nil
		},
		Mend: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			for _, rule := range active {
				rule.Off()
			}
			return nil
		},
		InForce: func() bool {
			mu.Lock()
			defer mu.Unlock()
			if len(active) == 0 {
				return false // there may be no listener
			}
			on := p.AWS.Faults().List()
			return slices.ContainsFunc(active, func(rule *awslocal.Active) bool { return slices.Contains(on, rule) })
		},
		Struck: func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, rule := range active {
				n += rule.Struck()
			}
			return n
		},
	}
}
