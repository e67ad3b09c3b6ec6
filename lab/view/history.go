package view

import (
	"slices"
	"sync"
	"time"
)

// maxSpans bounds the history's memory, also if somebody switches all the time.
const maxSpans = 200

// faultSpan is a time in which a fault was in force. A fault that strikes once has a span without length.
type faultSpan struct {
	Switch string `json:"switch"`
	From   int64  `json:"from"` // Unix time in milliseconds
	To     int64  `json:"to"`   // the same; 0 while the fault is in force
}

// history has the faults of the seconds that the timeline shows. The server keeps it, because a
// page that is loaded again has forgotten it.
type history struct {
	mu     sync.Mutex
	spans  []faultSpan // by their beginnings
	struck map[string]int
}

// note compares the switches with their last known states. It reads the switches under the
// history's lock, so that an older state never overwrites a newer one.
func (h *history) note(now time.Time, all []*faultSwitch, list func() []switchState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.struck == nil {
		h.struck = map[string]int{}
	}
	at := now.UnixMilli()
	for i, s := range list() {
		open := slices.IndexFunc(h.spans, func(one faultSpan) bool { return one.Switch == s.Name && one.To == 0 })
		switch {
		case all[i].Once():
			if s.Struck > h.struck[s.Name] {
				h.spans = append(h.spans, faultSpan{s.Name, at, at})
			}
			h.struck[s.Name] = s.Struck
		case s.On && open < 0:
			h.spans = append(h.spans, faultSpan{s.Name, at, 0})
		case !s.On && open >= 0:
			h.spans[open].To = at
		}
	}
	h.forget(at - maxPoints*time.Second.Milliseconds())
}

// forget drops the spans that ended before a time, and the oldest ones beyond maxSpans.
func (h *history) forget(before int64) {
	over := func(one faultSpan) bool { return one.To != 0 }
	h.spans = slices.DeleteFunc(h.spans, func(one faultSpan) bool { return over(one) && one.To < before })
	for len(h.spans) > maxSpans {
		oldest := max(0, slices.IndexFunc(h.spans, over))
		h.spans = slices.Delete(h.spans, oldest, oldest+1)
	}
}

func (h *history) list() []faultSpan {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]faultSpan{}, h.spans...)
}
