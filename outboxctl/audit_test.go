package outboxctl

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// audit audits the rig in this process. Old enough events count as missing at once.
func (r *rig) audit(t *testing.T, edit ...func(*auditFlags, *busLog)) *auditReport {
	t.Helper()
	f, log := auditFlags{since: 24 * time.Hour, late: 5 * time.Minute, limit: 20}, newBusLog(r.setup)
	for _, change := range edit {
		change(&f, &log)
	}
	report, err := audit(t.Context(), r.setup, log, f, io.Discard)
	require.NoError(t, err)
	return report
}

func ids(f findings) (all []string) {
	for _, e := range f.Events {
		all = append(all, e.EventID)
	}
	return all
}

func TestAudit(t *testing.T) {
	t.Parallel()

	t.Run("OKWhenEverythingArrived", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		for version := range 5 {
			e := event("a", version+1)
			r.commit(t, e)
			r.publish(t, e, r.createdAt(t, e))
		}
		got := r.run(t, "audit", "--grace", "0s")
		require.Zero(t, got.code, got.out+got.err)
		require.Equal(t, "audit: ok: 5 events, 0 missing, 0 pending, 0 duplicates, 0 replayed, 0 late, 0 out of order, 0 unknown", got.lastLine())
		require.Contains(t, got.out, "against "+testLogGroup)
	})

	t.Run("RefusesWhatTheLogHasForgotten", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		old, recent := event("a", 1), event("a", 2)
		r.commit(t, old, recent)
		r.backdate(t, 20*dayOld, old)
		r.publish(t, recent, r.createdAt(t, recent)) // the local log begins with its first event
		got := r.run(t, "audit", "--since", "720h", "--grace", "0s")
		require.Equal(t, 2, got.code, got.out)
		require.Empty(t, got.out)
		require.Regexp(t, `keeps 14 days, so older events would all count as missing: begin at \S+Z or later \(--from\)\n$`, got.err)
		begin := regexp.MustCompile(`begin at (\S+) or`).FindStringSubmatch(got.err)[1]
		got = r.run(t, "audit", "--from", begin, "--grace", "0s")
		require.Zero(t, got.code, got.out+got.err)
		require.Contains(t, got.lastLine(), "audit: ok: 1 event, 0 missing")
	})

	t.Run("FindsAnOldLossInALogThatForgetsNothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		old := event("a", 1)
		r.commit(t, old)
		r.backdate(t, 20*dayOld, old)
		got := r.run(t, "audit", "--since", "720h")
		require.Equal(t, 1, got.code, got.out+got.err)
		require.Contains(t, got.lastLine(), "audit: MISSING: 1 event, 1 missing")
	})

	t.Run("OneLostEventIsExitCode1", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		arrived, lost := event("a", 1), event("a", 2)
		r.commit(t, arrived, lost)
		r.publish(t, arrived, r.createdAt(t, arrived))
		got := r.run(t, "audit", "--grace", "0s")
		require.Equal(t, 1, got.code, got.out+got.err)
		require.Empty(t, got.err, "the report has said it")
		require.Contains(t, got.lastLine(), "audit: MISSING: 2 events, 1 missing")
		require.Contains(t, got.out, lost.ID.String()+"  Car a v2")
		require.Contains(t, got.out, "outboxctl where <event id>")

		got = r.run(t, "audit", "--grace", "0s", "--json")
		require.Equal(t, 1, got.code)
		report := decode[auditReport](t, got)
		require.Equal(t, []string{lost.ID.String()}, ids(report.Missing))
		require.Equal(t, 2, report.Committed)
		require.Equal(t, 1, report.OnBus)

		got = r.run(t, "audit", "--json") // a minute of grace
		require.Zero(t, got.code)
		report = decode[auditReport](t, got)
		require.Equal(t, 1, report.Pending)
		require.Zero(t, report.Missing.Count)
		require.NotNil(t, report.Missing.Events, "an empty list, not null")
	})

	t.Run("NoRowsNoEvents", func(t *testing.T) {
		t.Parallel()
		got := newRig(t).run(t, "audit")
		require.Zero(t, got.code, got.err)
		require.Contains(t, got.lastLine(), "audit: ok: 0 events")
	})

	t.Run("DuplicatesReplaysLateAndUnknown", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		twice, replayed, late, purged := event("a", 1), event("b", 1), event("c", 1), event("d", 1)
		r.commit(t, twice, replayed, late)
		r.backdate(t, time.Hour, late)
		for range 3 {
			r.publish(t, twice, r.createdAt(t, twice))
		}
		r.publish(t, replayed, r.createdAt(t, replayed), "replay/r1")
		r.publish(t, replayed, r.createdAt(t, replayed), "arn:aws:s3:::x")
		r.publish(t, late, r.createdAt(t, late))
		r.publish(t, purged, time.Now().Add(-2*time.Hour))
		r.publish(t, event("e", 1), time.Now().Add(-48*time.Hour)) // before the window
		r.publish(t, event("f", 1), time.Now().Add(time.Hour))     // behind it
		r.put(t, "outbox.other", "Other", `{"hello":"world"}`)
		r.put(t, "someone.else", "Car", `{"eventId":"`+purged.ID.String()+`"}`)

		report := r.audit(t)
		require.Equal(t, 3, report.Committed)
		require.Equal(t, 3, report.OnBus)
		require.Equal(t, 2, report.Duplicates.Count)
		require.Equal(t, []string{twice.ID.String()}, ids(report.Duplicates))
		require.Equal(t, 3, report.Duplicates.Events[0].Copies)
		require.Equal(t, 1, report.Replayed)
		require.Equal(t, []string{late.ID.String(), purged.ID.String()}, append(ids(report.Late), ids(report.Unknown)...))
		require.Zero(t, report.OutOfOrder.Count)
		require.Zero(t, report.Missing.Count)

		one := r.audit(t, func(f *auditFlags, _ *busLog) { f.limit = 0 })
		require.Equal(t, 1, one.Late.Count)
		require.Empty(t, one.Late.Events)
	})

	t.Run("OutOfOrderIsWhatCameAfterALaterVersion", func(t *testing.T) {
		t.Parallel()
		now := time.Now()
		clock := &now
		r := newRig(t, func(c *awslocal.Config) { c.Now = func() time.Time { return *clock } })
		var events []outbox.Event
		for version := 1; version <= 4; version++ {
			events = append(events, event("a", version))
		}
		r.commit(t, events...)
		for _, version := range []int{1, 3, 4, 2, 3} { // 2 is overtaken. The second 3 is only a duplicate.
			*clock = clock.Add(10 * time.Millisecond)
			r.publish(t, events[version-1], r.createdAt(t, events[version-1]))
		}
		report := r.audit(t)
		require.Equal(t, []string{events[1].ID.String()}, ids(report.OutOfOrder))
		require.Equal(t, 1, report.Duplicates.Count)
	})

	t.Run("ReadsALogThatIsFullerThanOneAnswer", func(t *testing.T) {
		t.Parallel()
		for name, cap := range map[string]struct{ server, client int }{"CutByTheLimit": {10_000, 4}, "CutByTheService": {4, 10_000}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				start := time.Now().Add(-time.Minute).Truncate(time.Second)
				clock := &start
				r := newRig(t, func(c *awslocal.Config) {
					c.QueryRows = cap.server
					c.Now = func() time.Time { return *clock }
				})
				for i := range 60 { // 40 of them in two seconds, then some four in a second
					e := event(fmt.Sprint("a", i), 1)
					r.commit(t, e)
					if i < 40 {
						*clock = clock.Add(50 * time.Millisecond)
					} else {
						*clock = clock.Add(230 * time.Millisecond)
					}
					r.publish(t, e, r.createdAt(t, e))
				}
				report := r.audit(t, func(_ *auditFlags, l *busLog) { l.limit = int32(cap.client) })
				require.Equal(t, 60, report.OnBus)
				require.Zero(t, report.Missing.Count+report.Duplicates.Count+report.Unknown.Count)
			})
		}
	})

	t.Run("ReadsEventsWithMoreFieldsThanLogsInsightsFinds", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event(`{"an": "odd id"}`, 1)
		payload := map[string]int{}
		for i := range 300 {
			payload[fmt.Sprint("field", i)] = i
		}
		var err error
		e.Data, err = json.Marshal(payload)
		require.NoError(t, err)
		small := event(`{"detail": "id"}`, 1)
		r.commit(t, e, small)
		r.publish(t, e, r.createdAt(t, e))
		r.publish(t, small, r.createdAt(t, small))
		report := r.audit(t)
		require.Equal(t, 2, report.OnBus)
		require.Zero(t, report.Unknown.Count)
	})

	t.Run("OnlyOneTypeOfAggregate", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		car, bike := event("a", 1), event("a", 1)
		bike.AggregateType = "Bike"
		r.commit(t, car, bike)
		r.publish(t, bike, r.createdAt(t, bike))
		report := r.audit(t, func(f *auditFlags, _ *busLog) { f.aggregateType = "Bike" })
		require.Equal(t, 1, report.Committed)
		require.Equal(t, 1, report.OnBus)
		report = r.audit(t, func(f *auditFlags, _ *busLog) { f.aggregateType = "Car" })
		require.Equal(t, []string{car.ID.String()}, ids(report.Missing))
		require.Zero(t, report.Unknown.Count)
	})

	t.Run("OnlyTheWindow", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		old, inside := event("a", 1), event("a", 2)
		r.commit(t, old, inside)
		r.backdate(t, 3*time.Hour, old)
		at := func(age time.Duration) string { return time.Now().Add(-age).Format(time.RFC3339) }
		require.Contains(t, r.run(t, "audit", "--grace", "0s", "--since", "1h").lastLine(), "MISSING: 1 event, 1 missing")
		require.Contains(t, r.run(t, "audit", "--grace", "0s", "--from", at(4*time.Hour), "--until", at(2*time.Hour)).lastLine(), "MISSING: 1 event")
		require.Contains(t, r.run(t, "audit", "--grace", "0s", "--from", at(4*time.Hour)).lastLine(), "MISSING: 2 events")
		require.Contains(t, r.run(t, "audit", "--grace", "0s", "--from", at(150*time.Minute), "--until", at(2*time.Hour)).lastLine(), "ok: 0 events")
	})
}

func TestAuditUse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"Argument":    {[]string{"x"}, `what is "x"?`},
		"BadTime":     {[]string{"--from", "yesterday"}, "audit: invalid value \"yesterday\" for flag -from: write a time as 2026-03-01T12:00:00Z; see outboxctl audit -h\n"},
		"EmptyWindow": {[]string{"--until", "2020-01-01T00:00:00Z"}, "is empty: change --from"},
		"BadDuration": {[]string{"--since", "1 day"}, "invalid value"},
		"NoSince":     {[]string{"--since", "0s"}, "--since must be more than 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := r.run(t, append([]string{"audit"}, tc.args...)...)
			require.Equal(t, 2, got.code)
			require.Contains(t, got.err, tc.want)
			require.Empty(t, got.out)
		})
	}
	t.Run("AggregateTypeThatIsNotThere", func(t *testing.T) {
		t.Parallel()
		got := r.run(t, "audit", "--aggregate-type", "Carr")
		require.Equal(t, 1, got.code)
		require.Equal(t, "outboxctl: audit: no row and no entry in this window is of aggregate type Carr: nothing was audited\n", got.err)
	})
	t.Run("LogGroupThatIsNotThere", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(c *awslocal.Config) { c.BusLogs = nil })
		got := r.run(t, "audit")
		require.Equal(t, 1, got.code)
		require.Contains(t, got.err, "outboxctl: reading "+testLogGroup)
		require.Contains(t, got.err, "ResourceNotFoundException")
	})
}

func TestSlices(t *testing.T) {
	t.Parallel()
	require.Equal(t, []slice{{0, 5, ""}, {5, 11, ""}}, slice{0, 11, ""}.split())
	require.Equal(t, []slice{{0, 1, ""}, {1, 2, ""}}, slice{0, 2, ""}.split())
	digits := slice{7, 8, "a"}.split()
	require.Len(t, digits, 16)
	require.Equal(t, slice{7, 8, "af"}, digits[15])
}

func TestInsightsTimes(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 3, 1, 12, 0, 0, 345e6, time.UTC)
	for _, text := range []string{"2026-03-01 12:00:00.345", fmt.Sprint(want.UnixMilli())} {
		got, err := parseInsightsTime(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := parseInsightsTime("soon")
	require.Error(t, err)
}

// id is a fixed event id.
func id(n byte) uuid.UUID { return uuid.UUID{15: n} }
