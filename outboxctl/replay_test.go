package outboxctl

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// What a replay sends is the event that came before, byte for byte, with a marker beside it.
func TestReplay(t *testing.T) {
	t.Parallel()
	r := newPath(t)
	first, second := event("car-1", 1), event("car-1", 2)
	r.consume(t)
	r.startRelay(t)
	r.commit(t, first, second)
	r.eventually(t, "the events on the bus", func() bool { return len(r.arrived(t, first)) == 1 && len(r.arrived(t, second)) == 1 })

	result := r.run(t, "replay", "--id", first.ID.String(), "--replay-id", "repair-1")
	require.Zero(t, result.code, result.err)
	require.Regexp(t, regexp.MustCompile(`^replay repair-1: sent 1 of 1 event of 1 aggregate, written from \S+Z to \S+Z$`), result.lastLine())
	r.eventually(t, "the event once more on the bus", func() bool { return len(r.arrived(t, first)) == 2 })
	before, after := r.arrived(t, first)[0], r.arrived(t, first)[1]
	require.Equal(t, []string{"replay/repair-1"}, after.Resources)
	after.Resources, after.ID, after.Accepted = before.Resources, before.ID, before.Accepted
	require.Equal(t, before, after)
	require.Empty(t, before.Resources)
	require.Len(t, r.arrived(t, second), 1)

	// Without a name it makes one.
	report := decode[replayReport](t, r.run(t, "replay", "--all", "--json"))
	require.True(t, outbox.ValidReplayID(report.ReplayID), report.ReplayID)
	require.Equal(t, 2, report.Sent)
}

func TestReplaySelects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old, car, other, bike := event("a", 1), event("a", 2), event("b", 1), event("a", 1)
	other.Type, other.Traceparent = "CarCreated", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	bike.AggregateType = "Bike"
	r.commit(t, old, car, other, bike)
	r.backdate(t, time.Hour, old)
	r.startRelayTo(t, elsewhere)
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for name, tc := range map[string]struct {
		args []string
		want []outbox.Event
	}{
		"OneEvent":         {[]string{"--id", car.ID.String()}, []outbox.Event{car}},
		"TwoEvents":        {[]string{"--id", car.ID.String(), "--id", bike.ID.String()}, []outbox.Event{car, bike}},
		"ById":             {[]string{"--id", "b"}, []outbox.Event{other}},
		"ATrace":           {[]string{"--id", "4bf92f3577b34da6a3ce929d0e0e4736"}, []outbox.Event{other}},
		"ATraceparent":     {[]string{"--id", other.Traceparent}, []outbox.Event{other}},
		"AnAggregate":      {[]string{"--aggregate-type", "Car", "--aggregate-id", "a"}, []outbox.Event{old, car}},
		"AnAggregateID":    {[]string{"--aggregate-id", "a"}, []outbox.Event{old, car, bike}},
		"AVersion":         {[]string{"--aggregate-type", "Car", "--aggregate-id", "a", "--from-version", "2", "--to-version", "2"}, []outbox.Event{car}},
		"SinceAVersion":    {[]string{"--aggregate-id", "a", "--from-version", "2"}, []outbox.Event{car}},
		"UntilAVersion":    {[]string{"--aggregate-id", "a", "--to-version", "1"}, []outbox.Event{old, bike}},
		"AKind":            {[]string{"--aggregate-type", "Bike"}, []outbox.Event{bike}},
		"AnEventType":      {[]string{"--event-type", "CarCreated"}, []outbox.Event{other}},
		"ATime":            {[]string{"--from", at(-2 * time.Hour), "--to", at(-30 * time.Minute)}, []outbox.Event{old}},
		"SinceATime":       {[]string{"--from", at(-30 * time.Minute)}, []outbox.Event{car, other, bike}},
		"UntilATime":       {[]string{"--to", at(-30 * time.Minute)}, []outbox.Event{old}},
		"WhatAllSelect":    {[]string{"--aggregate-id", "a", "--event-type", "CarCreated"}, nil},
		"Everything":       {[]string{"--all"}, []outbox.Event{old, car, other, bike}},
		"NothingThatMayBe": {[]string{"--event-type", "'; DROP TABLE outbox; --"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dry := decode[replayReport](t, r.run(t, append([]string{"replay", "--json", "--dry-run"}, tc.args...)...))
			require.EqualValues(t, len(tc.want), dry.Selected)
			require.Zero(t, dry.Sent)
			marker := "sent-" + name
			require.NotContains(t, r.markers(t), marker)
			sent := decode[replayReport](t, r.run(t, append([]string{"replay", "--json", "--replay-id", marker}, tc.args...)...))
			require.Equal(t, len(tc.want), sent.Sent)
			require.ElementsMatch(t, idsOf(tc.want), r.markers(t)[marker])
		})
	}

	t.Run("NothingIsSaid", func(t *testing.T) {
		for _, args := range [][]string{{"--event-type", "CarDeletedd"}, {"--event-type", "CarDeletedd", "--dry-run"}} {
			result := r.run(t, append([]string{"replay"}, args...)...)
			require.Equal(t, 1, result.code)
			require.Equal(t, "outboxctl: replay: these flags select no event: nothing was sent\n", result.err)
		}
		result := r.run(t, "replay", "--id", "of-nobody")
		require.Equal(t, 1, result.code)
		require.Equal(t, "outboxctl: replay: no row is of of-nobody: never committed, or purged; nothing was sent\n", result.err)
	})

	t.Run("AndRefusesWhatHasNoRow", func(t *testing.T) {
		missing := event("x", 1)
		result := r.run(t, "replay", "--id", car.ID.String(), "--id", missing.ID.String(), "--replay-id", "missing")
		require.Equal(t, 1, result.code)
		require.Contains(t, result.err, "no row for 1 of 2 ids, such as "+missing.ID.String())
		require.NotContains(t, r.markers(t), "missing")
	})

	t.Run("AndRefusesWrongUse", func(t *testing.T) {
		for _, args := range [][]string{
			{}, {"--rate", "5"}, {"x", "--all"}, {"--all", "--rate", "0"}, {"--all", "--rate", "-1"}, {"--from", "yesterday"},
			{"--all", "--from-version", "2"}, {"--aggregate-type", "Car", "--to-version", "2"}, {"--aggregate-id", "a", "--from-version", "-1"},
			{"--aggregate-id", "a", "--from-version", "3", "--to-version", "2"}, {"--all", "--replay-id", "a b"}, {"--all", "--replay-id", "a/b"},
		} {
			result := new(rig).run(t, append([]string{"replay"}, args...)...)
			require.Equal(t, 2, result.code, "%v: %s", args, result.err)
			require.Equal(t, 1, strings.Count(result.err, "\n"), "one line")
			require.NotEmpty(t, result.err)
		}
	})
}

func idsOf(events []outbox.Event) (all []string) {
	for _, e := range events {
		all = append(all, e.ID.String())
	}
	return all
}

// markers are the ids of the events on the stream by the marker of the replay that sent them.
func (r *rig) markers(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, raw := range r.streamed(t) {
		record, _, err := outbox.ParseRecord(raw.Data)
		require.NoError(t, err)
		require.Equal(t, outbox.OperationLoad, record.Operation)
		all[record.Replay] = append(all[record.Replay], record.Row.ID.String())
	}
	return all
}

// Kinesis refuses a third of the records, and every tenth call as a whole, and loses answers. A record may come twice, but the first
// of each version comes behind that of the version before, and none is missing.
func TestReplayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cars := []string{"a", "b", "c", "d", "e", "f"}
	for version := range 110 { // 660 rows are two pages, and the first ends in the middle of an aggregate
		for _, car := range cars {
			r.commit(t, event(car, version+1))
		}
	}
	r.startRelayTo(t, elsewhere)
	refused := r.aws.Faults().Add(awslocal.Fault{
		Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Rate: 0.3, Seed: 1,
	})
	failed := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.CallError, Status: 500, Rate: 0.1, Seed: 2})
	lost := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.ResetAfter, Rate: 0.1, Seed: 3})
	result := r.run(t, "replay", "--all", "--rate", "5000", "--replay-id", "x")
	require.Zero(t, result.code, result.err)
	require.Contains(t, result.lastLine(), "sent 660 of 660 events of 6 aggregates")
	require.Greater(t, refused.Struck(), 50)
	require.NotZero(t, failed.Struck())
	require.NotZero(t, lost.Struck())
	again := 0
	for _, car := range cars {
		again += requireInOrder(t, 110, r.versions(t, car, "x"))
	}
	require.NotZero(t, again, "the lost answers made no duplicates")
}

func TestReplayIsAloneOnItsDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := event("a", 1)
	r.commit(t, e)
	r.parkEvent(t, e, 1)
	r.startRelayTo(t, elsewhere)
	held := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.Delay, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		p, _, _ := r.inProcess()
		_, err := replay(ctx, p, r.setup, replayOptions{all: true, rate: 10, replayID: "the-first"})
		ended <- err
	}()
	r.eventually(t, "a replay in the middle of a call", func() bool { return held.Struck() > 0 })

	for _, args := range [][]string{{"replay", "--all"}, {"replay", "--id", e.ID.String()}, {"redrive", "--all"}} {
		// Had it sent anything, it would be in its call. The first one may have made its call again meanwhile.
		second := r.run(t, args...)
		require.Equal(t, 1, second.code, second.out)
		require.Regexp(t, `another one runs on this database: outboxctl replay the-first, pid \d+, since 20\S+Z`, second.err)
	}
	require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))
	require.Zero(t, r.run(t, "replay", "--all", "--dry-run").code, "a dry run sends nothing and may be at any time")

	held.Off()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	r.eventually(t, "the lock to go with the session", func() bool { return r.run(t, "replay", "--all").code == 0 })
}

// Version 2 is committed and not relayed, version 1 waits in the WAL, too. Sent now, 2 would arrive first.
func TestReplayWaitsForTheRelay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.startRelay(t)
	stop()
	first, second := event("a", 1), event("a", 2)
	r.commit(t, first, second)
	p, _, _ := r.inProcess()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := replay(ctx, p, r.setup, replayOptions{ids: []uuid.UUID{second.ID}, rate: 100, replayID: "early"})
		ended <- err
	}()
	r.eventually(t, "a look at the slot", func() bool {
		var looked bool
		err := r.db.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
			AND application_name LIKE 'outboxctl%' AND query LIKE '-- name: RetentionSlot %')`).Scan(&looked)
		return err == nil && looked
	})
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Empty(t, r.versions(t, "a", "early"))

	r.startRelay(t)
	require.Zero(t, r.run(t, "replay", "--id", second.ID.String(), "--replay-id", "now").code)
	var order []string
	for _, raw := range r.streamed(t) {
		record, _, err := outbox.ParseRecord(raw.Data)
		require.NoError(t, err)
		order = append(order, fmt.Sprint(record.Row.AggregateVersion, record.Replay))
	}
	require.Equal(t, []string{"1", "2", "2now"}, order)

	t.Run("AndRefusesWithoutASlot", func(t *testing.T) {
		missing := *r.setup
		missing.Slot = "no_such_slot"
		_, err := replay(t.Context(), p, &missing, replayOptions{all: true, rate: 100, replayID: "none"})
		require.ErrorContains(t, err, "replication slot no_such_slot does not exist")
	})
}

// A slot with a backlog may take longer than slotPatience, as long as it moves. The clock is the
// test's own. Between two looks most of
// slotPatience passes.
func TestReplayWaitsAsLongAsTheSlotMoves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(t, "SELECT pg_create_logical_replication_slot('"+r.slot+"', 'pgoutput')")
	t.Cleanup(func() {
		_, err := r.db.Pool.Exec(context.WithoutCancel(t.Context()), "SELECT pg_drop_replication_slot($1)", r.slot)
		require.NoError(t, err)
	})
	var positions []string
	for version := range 5 {
		r.commit(t, event("a", version+1))
		position, err := dbgen.New(r.db.Pool).WALInsertPosition(t.Context())
		require.NoError(t, err)
		positions = append(positions, position)
	}
	looks, clock := 0, time.Now()
	wait := func(move func()) error {
		looks = 0
		return awaitRelayed(t.Context(), dbgen.New(r.db.Pool), r.slot, func() time.Time {
			looks++
			clock = clock.Add(slotPatience * 2 / 3)
			move()
			return clock
		})
	}
	require.NoError(t, wait(func() {
		to := "pg_current_wal_lsn()"
		if looks <= len(positions) {
			to = "'" + positions[looks-1] + "'"
		}
		r.exec(t, "SELECT pg_replication_slot_advance('"+r.slot+"', "+to+")")
	}))
	require.Greater(t, looks, len(positions))

	r.commit(t, event("a", 6))
	require.ErrorContains(t, wait(func() {}), "no further for 30s, and the rows wait for")
	require.Equal(t, 3, looks)
}

// The rows are counted, and one of them is purged before it is read.
func TestReplaySaysThatRowsWerePurgedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.startRelayTo(t, elsewhere)
	kept, gone := event("a", 1), event("b", 1)
	r.commit(t, kept, gone)
	p, _, _ := r.inProcess()
	p.progress = writer(func() { r.purge(t, gone) }) // it says how many there are before it reads them
	report, err := replay(t.Context(), p, r.setup, replayOptions{all: true, rate: 100, replayID: "x"})
	require.ErrorContains(t, err, "replay x: 1 of 2 events sent: the others were purged meanwhile")
	require.Equal(t, 1, report.Sent)
	require.Equal(t, []string{kept.ID.String()}, r.markers(t)["x"])
}

func TestReplayRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 30 {
		r.commit(t, event(fmt.Sprint("car-", i), 1))
	}
	r.startRelayTo(t, elsewhere)

	t.Run("IsKept", func(t *testing.T) {
		p, _, _ := r.inProcess()
		started := time.Now()
		report, err := replay(t.Context(), p, r.setup, replayOptions{all: true, rate: 60, replayID: "slow"})
		require.NoError(t, err)
		require.Equal(t, 30, report.Sent)
		// The last call need not wait for its successor, so this is 24 of 30 at 60 a second.
		require.Greater(t, time.Since(started), 400*time.Millisecond)
	})

	t.Run("LetsAnInterruptionSayHowFarItGot", func(t *testing.T) {
		p, out, progress := r.inProcess()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		held := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Match: "car-5", Kind: awslocal.Delay, Delay: time.Hour}) // in the middle
		go func() {
			for held.Struck() == 0 && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // between two looks
			}
			cancel()
		}()
		defer held.Off()
		report, err := replay(ctx, p, r.setup, replayOptions{all: true, rate: 20, replayID: "cut"})
		require.ErrorIs(t, err, context.Canceled)
		// The call that was cut off may have arrived.
		require.GreaterOrEqual(t, len(r.markers(t)["cut"]), report.Sent)
		require.Greater(t, report.Sent, 0)
		require.Less(t, report.Sent, 30)
		require.ErrorContains(t, err, fmt.Sprintf("replay cut: %d of 30 events sent", report.Sent))
		require.ErrorContains(t, err, "run it again")
		require.Contains(t, progress.String(), "replay cut: 30 events, 20 a second")
		require.NoError(t, p.print(report))
		require.True(t, json.Valid(out.Bytes()))
	})
}

func TestACallKeepsItsLimits(t *testing.T) {
	t.Parallel()
	p := &putter{perCall: maxPutRecords, window: newPutWindow()}
	for p.window.Size() < maxPutBytes { // it has seen the stream answer at once
		p.window.Answered(p.window.Size(), p.window.Size(), time.Millisecond)
	}
	records := make([]*outgoing, 3)
	for i := range records {
		key := fmt.Sprint("key-", i)
		records[i] = &outgoing{key: key, data: make([]byte, maxPutBytes/2-len(key))}
	}
	require.Len(t, p.next(records), 2)
	records[0].data = make([]byte, 2*maxPutBytes)
	require.Len(t, p.next(records), 1, "a record larger than the limit goes alone")
	p.perCall = 1
	require.Len(t, p.next(records[1:]), 1)
}
