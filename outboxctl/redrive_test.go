package outboxctl

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// The bus refuses an event, it is parked, the cause is mended, and a redrive brings it onto the bus.
func TestRedrive(t *testing.T) {
	t.Parallel()
	r := newPath(t)
	first, second := event("car-1", 1), event("car-1", 2)
	refusal := r.aws.Faults().Add(awslocal.Fault{
		Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "MalformedDetail", Message: "not today", Match: first.ID.String(),
	})
	r.consume(t)
	r.written(t, first, second)
	r.eventually(t, "the second event on the bus, the first one parked", func() bool {
		return len(r.arrived(t, second)) == 1 && r.depth(t, r.setup.FailureQueue) == "1+0"
	})
	require.NotZero(t, refusal.Struck())

	list := r.run(t, "redrive", "list")
	require.Zero(t, list.code, list.err)
	require.Contains(t, list.out, first.ID.String()+"  refused      Car car-1 v1 CarUpdated  MalformedDetail: not today")
	require.Contains(t, list.out, "1 message\n")
	require.NotContains(t, list.out, `"version"`, "payload in the list")
	listed := decode[redriveListing](t, r.run(t, "redrive", "list", "--json"))
	require.Len(t, listed.Messages, 1)

	show := r.run(t, "redrive", "show", first.ID.String())
	require.Zero(t, show.code, show.err)
	require.Contains(t, show.out, `{\"version\": 1}`)
	require.Contains(t, show.out, "aggregate  Car car-1 version 1\n")
	shown := decode[redriveShown](t, r.run(t, "redrive", "show", listed.Messages[0].MessageID, "--json"))
	require.Equal(t, r.recordWithout(t, first), r.without(t, shown.Messages[0].Payload[0].Data))

	// While the cause is there, a dry run changes nothing, and a redrive ends where it began.
	dry := r.run(t, "redrive", first.ID.String(), "--dry-run")
	require.Zero(t, dry.code, dry.err)
	require.Contains(t, dry.out, "would go  "+first.ID.String())
	require.Equal(t, "dry run: 1 record of 1 message; 0 stay", dry.lastLine())
	require.Contains(t, dry.err, "warning: Car car-1 is at version 2 in the table: subscribers will see version 1 late; aggregateVersion tells them")
	require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))
	require.Equal(t, upTo(2), r.versions(t, "car-1", ""))

	back := r.run(t, "redrive", first.ID.String(), "--wait", "10m")
	require.Equal(t, 1, back.code, back.err)
	require.Contains(t, back.out, "CAME BACK "+first.ID.String()+"  refused ")
	require.Equal(t, "redriven: 1 record of 1 message; 0 stay, 1 came back", back.lastLine())
	require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))

	refusal.Off()
	done := r.run(t, "redrive", first.ID.String())
	require.Zero(t, done.code, done.err)
	require.Equal(t, "redriven: 1 record of 1 message; 0 stay", done.lastLine())
	r.eventually(t, "the first event on the bus", func() bool { return len(r.arrived(t, first)) == 1 })
	require.Equal(t, "0+0", r.depth(t, r.setup.FailureQueue))
	require.Empty(t, r.arrived(t, first)[0].Resources, "a redrive is no replay: nobody has seen the event yet")
}

// recordWithout is the event's record without the time at which it was made.
func (r *rig) recordWithout(t *testing.T, e outbox.Event) outbox.Record {
	t.Helper()
	return r.without(t, r.recordOf(t, e))
}

func (r *rig) without(t *testing.T, data []byte) outbox.Record {
	t.Helper()
	record, _, err := outbox.ParseRecord(data)
	require.NoError(t, err)
	record.Timestamp = time.Time{}
	return record
}

func TestRedriveChooses(t *testing.T) {
	t.Parallel()
	undecodable := func(p *cdcconsumer.ParkedRecord) {
		*p = cdcconsumer.ParkedRecord{
			Reason: cdcconsumer.ReasonUndecodable, ErrorMessage: "not a DMS record", StreamARN: p.StreamARN, ShardID: p.ShardID,
			SequenceNumber: p.SequenceNumber, PartitionKey: "key", Data: []byte("\x1b[2Jpoison\xff"), Size: 11,
		}
	}
	fill := func(t *testing.T) (*rig, []outbox.Event) {
		t.Helper()
		r := newRig(t)
		events := []outbox.Event{event("a", 1), event("a", 2), event("b", 1), event("c", 1)}
		events[2].Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		r.commit(t, events...)
		r.parkEvent(t, events[0], 1)
		r.parkEvent(t, events[1], 2)
		r.parkEvent(t, events[2], 3)
		r.parkEvent(t, events[3], 4, undecodable)
		r.send(t, r.setup.FailureQueue, `{"who":"knows"}`)
		return r, events
	}
	for name, tc := range map[string]struct {
		args  func([]outbox.Event) []string
		put   int
		stays string // in the queue
		warns string
		code  int
	}{
		"OneEvent":            {func(e []outbox.Event) []string { return []string{e[2].ID.String()} }, 1, "4+0", "", 0},
		"OneEventInUpperCase": {func(e []outbox.Event) []string { return []string{strings.ToUpper(e[2].ID.String())} }, 1, "4+0", "", 0},
		"ANewerVersion":       {func(e []outbox.Event) []string { return []string{e[1].ID.String()} }, 1, "4+0", "version 1 stays parked while version 2 goes", 0},
		"AnAggregate":         {func([]outbox.Event) []string { return []string{"a"} }, 2, "3+0", "", 0},
		"ATrace":              {func([]outbox.Event) []string { return []string{"4bf92f3577b34da6a3ce929d0e0e4736"} }, 1, "4+0", "", 0},
		"ATraceparent":        {func(e []outbox.Event) []string { return []string{e[2].Traceparent} }, 1, "4+0", "", 0},
		"AReason":             {func([]outbox.Event) []string { return []string{"--reason", "undecodable"} }, 1, "4+0", "", 0},
		"NoReasonOfThese":     {func([]outbox.Event) []string { return []string{"--reason", "discarded"} }, 0, "5+0", "none of the 5 messages has the reason discarded", 1},
		"AnotherReason":       {func([]outbox.Event) []string { return []string{"--reason", "refused"} }, 3, "2+0", "", 0},
		// What cannot be read stays, and that is bad news.
		"All":          {func([]outbox.Event) []string { return []string{"--all"} }, 4, "1+0", "", 1},
		"AllAsADryRun": {func([]outbox.Event) []string { return []string{"--all", "--dry-run"} }, 0, "5+0", "", 1},
		"NothingThere": {func([]outbox.Event) []string { return []string{"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12"} }, 0, "5+0", "none of the 5 messages", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, events := fill(t)
			result := r.run(t, append([]string{"redrive"}, tc.args(events)...)...)
			require.Equal(t, tc.code, result.code, "%s\n%s", result.out, result.err)
			require.Len(t, r.streamed(t), tc.put)
			require.Equal(t, tc.stays, r.depth(t, r.setup.FailureQueue))
			require.Contains(t, result.err, tc.warns)
			if tc.warns == "" {
				require.NotContains(t, result.err, "warning")
			}
		})
	}
	t.Run("WhatNoOneElseIsLookingAt", func(t *testing.T) {
		t.Parallel()
		r, _ := fill(t)
		_, err := sqs.NewFromConfig(r.config).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &r.setup.FailureQueue, MaxNumberOfMessages: 2, VisibilityTimeout: 12 * 3600, // they must not come back while the test runs
		})
		require.NoError(t, err)
		list := r.run(t, "redrive", "list")
		require.Contains(t, list.out, "3 messages\n")
		require.Contains(t, list.err, "warning: there are more messages: someone else is looking at them")
		require.Equal(t, "3+2", r.depth(t, r.setup.FailureQueue))
	})
	t.Run("AndGivesBackBeforeItPrints", func(t *testing.T) {
		t.Parallel()
		r, _ := fill(t)
		p := &program{out: writer(func() { require.Equal(t, "5+0", r.depth(t, r.setup.FailureQueue)) }), progress: io.Discard, json: true}
		require.NoError(t, redriveList(t.Context(), p, r.setup, redriveOptions{all: true}))
		shown := r.listed(t, 5)[4].MessageID
		require.NoError(t, redriveShow(t.Context(), p, r.setup, redriveOptions{id: shown}))
		require.NoError(t, redrive(t.Context(), p, r.setup, redriveOptions{id: shown, dryRun: true, rate: 1}))
	})
	t.Run("NothingThatIsWrong", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{
			{}, {"a", "b"}, {"--reason", "whim"}, {"show"}, {"list", "x"}, {"x", "--all"}, {"--all", "--rate", "0"}, {"--nonsense"},
		} {
			result := new(rig).run(t, append([]string{"redrive"}, args...)...)
			require.Equal(t, 2, result.code, "%v: %s", args, result.err)
			require.NotEmpty(t, result.err)
		}
	})
	t.Run("AndShowsWithoutHarmingTheTerminal", func(t *testing.T) {
		t.Parallel()
		r, _ := fill(t)
		listed := r.listed(t, 1, "--reason", "undecodable")
		var show result
		r.eventually(t, "the message to be shown", func() bool {
			show = r.run(t, "redrive", "show", listed[0].MessageID)
			return show.code == 0
		})
		require.Contains(t, show.out, `"\x1b[2Jpoison\xff"`)
		require.NotContains(t, show.out, "\x1b")
		require.Contains(t, r.listed(t, 1, "--reason", "unreadable")[0].Problem, "neither a parked record nor an on-failure message")
	})
}

// listed waits until redrive list has n messages, and returns them. A receipt whose answer is lost hides its messages for claimHide: a
// list then has fewer, and says so.
func (r *rig) listed(t *testing.T, n int, args ...string) (all []messageReport) {
	t.Helper()
	r.eventually(t, "all messages in the list", func() bool {
		all = decode[redriveListing](t, r.run(t, append([]string{"redrive", "list", "--json"}, args...)...)).Messages
		return len(all) == n
	})
	return all
}

// writer is called for every write.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// The queue gives its messages in any order and some twice, and the stream refuses a third of the records.
func TestRedriveKeepsTheOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var events []outbox.Event
	for version := range 12 {
		for _, car := range []string{"a", "b", "c"} {
			events = append(events, event(car, version+1))
		}
	}
	r.commit(t, events...)
	for _, i := range rand.Perm(len(events)) {
		r.parkEvent(t, events[i], 99_990+i) // sequence numbers of five and of six digits
	}
	r.parkEvent(t, events[0], 99_990)
	r.parkEvent(t, events[1], 99_999_999) // from a replay that was refused, too
	fault := r.aws.Faults().Add(awslocal.Fault{
		Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Rate: 0.3, Seed: 7,
	})
	result := r.run(t, "redrive", "--all", "--rate", "1000")
	require.Zero(t, result.code, "%s\n%s", result.out, result.err)
	require.NotContains(t, result.err, "warning", "nothing newer is out")
	require.Equal(t, "redriven: 36 records of 38 messages; 0 stay", result.lastLine())
	require.Greater(t, fault.Struck(), 5)
	for _, car := range []string{"a", "b", "c"} {
		requireInOrder(t, 12, r.versions(t, car, ""))
	}
	require.Equal(t, "0+0", r.depth(t, r.setup.FailureQueue))
}

// The answer with the first ten messages is lost on its way, so nobody has them for a while. The others must not go before them.
func TestRedriveWaitsForWhatIsHidden(t *testing.T) {
	t.Parallel()
	hours := newHours()
	r := newRig(t, hours.set)
	r.setup.DiscardQueue = "" // or the fault might strike there
	for version := range 12 {
		e := event("a", version+1)
		r.commit(t, e)
		r.parkEvent(t, e, version)
	}
	lost := r.aws.Faults().Add(awslocal.Fault{Operation: "ReceiveMessage", Kind: awslocal.ResetAfter, Count: 1})
	looks := r.aws.Faults().Add(awslocal.Fault{Operation: "GetQueueAttributes", Kind: awslocal.Delay, Delay: time.Nanosecond})
	go func() {
		for looks.Struck() < 2 {
			time.Sleep(time.Millisecond) // between two looks
		}
		hours.pass(1)
	}()
	p, _, progress := r.inProcess()
	require.NoError(t, redrive(t.Context(), p, r.setup, redriveOptions{all: true, rate: 1000, patience: time.Hour}))
	require.Equal(t, 1, lost.Struck())
	require.Contains(t, progress.String(), "someone else is looking at ")
	requireInOrder(t, 12, r.versions(t, "a", ""))
	require.Equal(t, "0+0", r.depth(t, r.setup.FailureQueue))
}

func TestRedriveKeepsTheMessage(t *testing.T) {
	t.Parallel()

	t.Run("OfARecordThatTheStreamDoesNotTake", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		events := []outbox.Event{event("a", 1), event("a", 2), event("b", 1), event("b", 2)}
		r.commit(t, events...)
		for i, e := range events {
			r.parkEvent(t, e, i+1)
		}
		fault := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.EntryError, Code: "InternalFailure", Match: "b"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for fault.Struck() < 5 {
				time.Sleep(time.Millisecond) // between two looks
			}
			cancel() // Ctrl-C
		}()
		p, out, _ := r.inProcess()
		err := redrive(ctx, p, r.setup, redriveOptions{all: true, rate: 1000})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "InternalFailure")
		require.Equal(t, upTo(2), r.versions(t, "a", ""))
		require.Empty(t, r.versions(t, "b", ""))
		require.Equal(t, "2+0", r.depth(t, r.setup.FailureQueue), "visible for the next try")
		var report redriveReport
		require.NoError(t, json.Unmarshal(out.Bytes(), &report))
		require.Equal(t, 2, report.Failed)
		for i, m := range sorted(report.Messages) {
			require.Equal(t, i < 2, m.Redriven)
			require.Equal(t, i < 2, m.Problem == "")
		}
		fault.Off()
		require.Zero(t, r.run(t, "redrive", "--all").code)
		require.Equal(t, upTo(2), r.versions(t, "b", ""))
	})

	t.Run("WhenTheCallIsForbidden", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		r.parkEvent(t, e, 1)
		fault := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.CallError, Code: "AccessDeniedException", Message: "not you"})
		result := r.run(t, "redrive", "--all")
		require.Equal(t, 1, result.code)
		require.Contains(t, result.err, "not you")
		require.Contains(t, result.out, "STAYS")
		require.Equal(t, 1, fault.Struck(), "what no retry mends is not tried again")
		require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))
	})

	t.Run("AndSaysSoWhenItCannotBeDeleted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		r.parkEvent(t, e, 1)
		r.aws.Faults().Add(awslocal.Fault{Operation: "DeleteMessage", Kind: awslocal.CallError, Code: "AccessDenied"})
		result := r.run(t, "redrive", "--all")
		require.Equal(t, 1, result.code)
		require.Contains(t, result.out, "the stream has it, but its message stays")
		require.Equal(t, upTo(1), r.versions(t, "a", ""))
	})
}

// The warning names the lowest version that is sent, in whatever order the records come, and compares it with what is not sent.
func TestLatenessOfTheLowestVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	events := []outbox.Event{event("late", 1), event("late", 2), event("late", 3)}
	r.commit(t, events...)
	sent := func(events ...outbox.Event) (records []*record) {
		for _, e := range events {
			row, err := dbgen.New(r.db.Pool).OutboxGet(t.Context(), e.ID)
			require.NoError(t, err)
			records = append(records, &record{event: &outbox.Record{Row: row}})
		}
		return records
	}
	warnings, err := lateness(t.Context(), dbgen.New(r.db.Pool), sent(events[0], events[1]))
	require.NoError(t, err)
	require.Equal(t, []string{"Car late is at version 3 in the table: subscribers will see version 1 late; aggregateVersion tells them"}, warnings)
	warnings, err = lateness(t.Context(), dbgen.New(r.db.Pool), sent(events[2], events[1]))
	require.NoError(t, err)
	require.Empty(t, warnings, "only an older version stays")
}

// A message that was there before the redrive has not come back, although it is about the record that was sent.
func TestAMessageThatStaysHasNotComeBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := event("twice", 1)
	r.written(t, e)
	r.parkEvent(t, e, 1)
	r.parkEvent(t, e, 2)
	messages := r.listed(t, 2)
	result := r.run(t, "redrive", messages[0].MessageID, "--wait", "100ms")
	require.Zero(t, result.code, result.err)
	require.NotContains(t, result.out, "CAME BACK")
	require.Equal(t, "1+0", r.depth(t, r.setup.FailureQueue))
}
