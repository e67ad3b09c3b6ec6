package outboxctl

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// cameBack returns the messages that are not among before and are about a record that was sent. It looks until there is one for each
// record that was sent, or until wait is over. A consumer that has not come to a record by then may still park it.
func (plan *redrivePlan) cameBack(ctx context.Context, s *Setup, before []*message, wait time.Duration) ([]messageReport, error) {
	sent := slices.DeleteFunc(slices.Clone(plan.records), func(r *record) bool { return !r.sent })
	old := map[string]bool{}
	for _, m := range before {
		old[m.id] = true
	}
	deadline := time.Now().Add(wait)
	for {
		messages, _, err := newHolding(s, isNoEvent).look(ctx)
		if err != nil {
			return nil, err
		}
		var back []messageReport
		for _, m := range messages {
			if !old[m.id] && slices.ContainsFunc(sent, m.isAbout) {
				back = append(back, m.report())
			}
		}
		if len(back) >= len(sent) || time.Now().After(deadline) {
			return back, nil
		}
		select {
		case <-ctx.Done():
			return back, ctx.Err()
		case <-time.After(200 * time.Millisecond): // look itself waits for a second
		}
	}
}

// isNoEvent reports whether the message parks a record that is no event.
func isNoEvent(m *message) bool { return m.parked.EventID == "" }

// isAbout reports whether the message parks the record. A record that is no event has only its bytes to know it by.
func (m *message) isAbout(r *record) bool {
	if r.event != nil {
		return m.has(r.event.Row.ID.String())
	}
	return isNoEvent(m) && m.parked.Size == len(r.data) && bytes.HasPrefix(r.data, m.parked.Data)
}
