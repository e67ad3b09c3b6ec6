package awslocal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

// withRule is a bus whose events of source "outbox.car" go to the queue "q".
func withRule() awslocal.Config {
	return awslocal.Config{
		Buses: []string{"bus"}, Queues: []string{"q", "other"},
		Rules: []awslocal.Rule{{Bus: "bus", Source: "outbox.car", DetailTypes: []string{"CarCreated", "CarUpdated"}, Queue: "q"}},
	}
}

func carEvent(n int) types.PutEventsRequestEntry {
	return types.PutEventsRequestEntry{
		EventBusName: aws.String("bus"), Source: aws.String("outbox.car"), DetailType: aws.String("CarCreated"),
		Detail: aws.String(fmt.Sprintf(`{"n": %d, "html": "<&>"}`, n)), Time: aws.Time(time.Date(2026, 11, 23, 9, 15, 0, 999, time.UTC)),
	}
}

func TestRuleSendsTheEnvelope(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, withRule())
	bus, q := eventbridge.NewFromConfig(cfg), queue(t, cfg)
	entries := []types.PutEventsRequestEntry{carEvent(1), carEvent(2), carEvent(3), carEvent(4), carEvent(5)}
	entries[0].Resources = []string{"replay/x"}
	entries[1].Source = aws.String("outbox.cargo")
	entries[2].DetailType = aws.String("CarDeleted")
	entries[3].EventBusName = nil
	entries[4].Detail = aws.String("no object")
	out, err := bus.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
	require.NoError(t, err)
	messages := q.receive()
	require.Len(t, messages, 1)
	require.Equal(t, `{"version":"0","id":"`+*out.Entries[0].EventId+`","detail-type":"CarCreated","source":"outbox.car","account":"000000000000",`+
		`"time":"2026-11-23T09:15:00Z","region":"us-east-1","resources":["replay/x"],"detail":{"n":1,"html":"<&>"}}`, *messages[0].Body)
}

// A rule puts nothing into a queue that SendMessage would refuse. PutEvents has accepted the event, and the others arrive.
func TestARuleDeliversWhatSendMessageTakes(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, withRule())
	bus, q := eventbridge.NewFromConfig(cfg), queue(t, cfg)
	entries := []types.PutEventsRequestEntry{carEvent(1), carEvent(2), carEvent(3)}
	entries[0].Detail = aws.String("{\"a\":\"\uFFFE\"}")
	entries[1].Detail = aws.String(`{"a":"\ufffe\u0000"}`) // escaped, it is plain text
	out, err := bus.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
	require.NoError(t, err)
	require.Zero(t, out.FailedEntryCount)
	require.Len(t, q.receive(), 2)
}

func TestRulesAreChecked(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*awslocal.Config){
		"UnknownBus":   func(c *awslocal.Config) { c.Rules[0].Bus = "x" },
		"NoSource":     func(c *awslocal.Config) { c.Rules[0].Source = "" },
		"UnknownQueue": func(c *awslocal.Config) { c.Rules[0].Queue = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := withRule()
			conf.Dir = t.TempDir()
			spoil(&conf)
			_, err := awslocal.Open(conf)
			require.ErrorContains(t, err, "Config.Rules[0]")
		})
	}
}

// put sends events n, n+1 ... one call each.
func put(t *testing.T, bus *eventbridge.Client, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		out, err := bus.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{carEvent(n)}})
		require.NoError(t, err)
		require.Zero(t, out.FailedEntryCount)
	}
}

// drain receives and deletes everything, and returns the numbers in the order of arrival.
func (q queueClient) drain() (numbers []int) {
	q.t.Helper()
	for {
		messages := q.receive()
		if len(messages) == 0 {
			return numbers
		}
		for _, m := range messages {
			var n int
			_, rest, _ := strings.Cut(*m.Body, `"detail":{"n":`)
			_, err := fmt.Sscan(rest, &n)
			require.NoError(q.t, err, *m.Body)
			numbers = append(numbers, n)
			q.delete(m)
		}
	}
}

func TestFaultsOfDelivery(t *testing.T) {
	t.Parallel()

	t.Run("DuplicateComesTwice", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		conf := withRule()
		conf.Now = clock.now
		server, cfg := start(t, conf)
		bus, q := eventbridge.NewFromConfig(cfg), queue(t, cfg)
		once := server.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Match: `"n": 2,`})
		put(t, bus, 1, 3)
		require.Equal(t, []int{1, 2, 2, 3}, q.drain())
		require.Equal(t, 1, once.Struck())
		once.Off()
		server.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Delay: time.Minute})
		put(t, bus, 4, 4)
		require.Equal(t, []int{4}, q.drain())
		clock.pass(time.Minute)
		require.Equal(t, []int{4}, q.drain())
	})

	t.Run("LoseDeliversNowhereWhatWasAccepted", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, withRule())
		bus, q := eventbridge.NewFromConfig(cfg), queue(t, cfg)
		server.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate})
		lost := server.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Lose, Match: `"n": 2,`})
		put(t, bus, 1, 3)
		require.Equal(t, []int{1, 1, 3, 3}, q.drain(), "no copy of it")
		require.Equal(t, 1, lost.Struck())
		lost.Off()
		put(t, bus, 2, 2)
		require.Equal(t, []int{2, 2}, q.drain())
	})

	t.Run("DelayIsDisorderThatOutlivesARestart", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		conf := withRule()
		conf.Dir, conf.Now = t.TempDir(), clock.now
		server, cfg := start(t, conf)
		bus, q := eventbridge.NewFromConfig(cfg), queue(t, cfg)
		server.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Delay, Delay: time.Minute, Count: 20, Seed: 1})
		put(t, bus, 1, 20)
		require.Empty(t, q.drain())
		put(t, bus, 21, 21)
		require.Equal(t, []int{21}, q.drain(), "the next one overtakes")
		require.NoError(t, server.Close())
		_, cfg = start(t, conf)
		q = queue(t, cfg)
		var all []int
		for range 60 {
			clock.pass(time.Second)
			all = append(all, q.drain()...)
		}
		require.False(t, slices.IsSorted(all), all)
		slices.Sort(all)
		require.Equal(t, slices.Collect(func(yield func(int) bool) {
			for n := 1; n <= 20 && yield(n); n++ {
			}
		}), all)
	})

	t.Run("CallsAreNotStruckByThem", func(t *testing.T) {
		t.Parallel()
		server, cfg := start(t, withRule())
		slow := server.Faults().Add(awslocal.Fault{Kind: awslocal.Delay, Delay: time.Nanosecond}) // of every service, and no delivery
		put(t, eventbridge.NewFromConfig(cfg), 1, 1)
		require.Equal(t, 1, slow.Struck())
	})

	t.Run("AreValidated", func(t *testing.T) {
		t.Parallel()
		for _, fault := range []awslocal.Fault{
			{Kind: awslocal.Duplicate}, {Service: "events", Kind: awslocal.Duplicate}, {Service: "rules", Kind: awslocal.Reset},
			{Service: "rules", Kind: awslocal.EntryError, Code: "x"}, {Service: "rules", Kind: awslocal.Delay},
		} {
			require.Error(t, fault.Validate(), "%+v", fault)
		}
	})
}
