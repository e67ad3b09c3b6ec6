package outboxctl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/inbox"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

func TestWhere(t *testing.T) {
	t.Parallel()

	t.Run("TellsTheWholeStory", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.startRelay(t)
		e, other := event("a", 1), event("a", 2)
		r.commit(t, e, other)
		r.awaitOnStream(t, e, other)
		r.publish(t, e, r.createdAt(t, e))

		got := r.run(t, "where", e.ID.String())
		require.Zero(t, got.code, got.out+got.err)
		require.Regexp(t, `^event `+e.ID.String()+`
② 20\S+Z  row: Car a v1, CarUpdated; its transaction began then
③ 20\S+Z  committed at \S+, transaction \d+
④ 20\S+Z  shardId-00000000000\d \d+, insert.*
⑤ not in a failure queue
⑥ 20\S+Z  on the bus, EventBridge id [0-9a-f-]{36} \(commit \+\S+\)
where: last hop ⑥: on the bus
$`, got.out)

		report := decode[WhereReport](t, r.run(t, "where", "--json", e.ID.String()))
		require.Equal(t, "⑥", report.LastHop)
		require.Equal(t, int64(1), report.Row.AggregateVersion)
		require.WithinDuration(t, report.Row.CreatedAt, report.Commit.At, 30*time.Minute)
		require.NotEmpty(t, report.Commit.Position)
		require.Len(t, report.Stream, 1)
		require.Len(t, report.Bus, 1)
		require.NotNil(t, report.Parked)
		record, err := json.Marshal(r.where(t, e))
		require.NoError(t, err)
		require.JSONEq(t, r.run(t, "where", "--json", e.ID.String()).out, string(record), "the library returns what the program prints")

		r.publish(t, other, r.createdAt(t, other))
		require.Zero(t, r.audit(t).Missing.Count, "and the audit of the real relay's rows agrees")
	})

	t.Run("FindsTheEventsOfATrace", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
		first, second, other := event("a", 1), event("a", 2), event("b", 1)
		first.Traceparent = "00-" + traceID + "-00f067aa0ba902b7-01"
		second.Traceparent = "00-" + traceID + "-00f067aa0ba902b8-00"
		other.Traceparent = "00-" + traceID[1:] + "0-00f067aa0ba902b7-01"
		r.commit(t, first, second, other)
		got := r.run(t, "where", traceID)
		require.Equal(t, 1, got.code, "they are not on the bus")
		require.Regexp(t, `(?s)^event `+first.ID.String()+`, trace `+traceID+`\n.*\nevent `+second.ID.String()+`, trace `+traceID+`\n`, got.out)
		require.NotContains(t, got.out, other.ID.String())

		report := decode[namedReport](t, r.run(t, "where", "--json", traceID))
		require.Len(t, report.Events, 2)
		require.Equal(t, traceID, report.Events[1].TraceID)
		require.Equal(t, got.out, r.run(t, "where", first.Traceparent).out, "a traceparent names the same")

		got = r.run(t, "where", strings.Repeat("0", 31)+"1")
		require.Equal(t, 1, got.code)
		require.Contains(t, got.out, "it made no event")
	})

	t.Run("FindsTheEventsOfAnAggregate", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		first, second, other := event("01a206e8-c9be-7c24-b60f-e32478fe6839", 1), event("01a206e8-c9be-7c24-b60f-e32478fe6839", 2), event("42", 1)
		r.commit(t, second, first, other)
		for _, e := range []outbox.Event{first, second} {
			r.publish(t, e, r.createdAt(t, e))
		}
		got := r.run(t, "where", first.AggregateID)
		require.Zero(t, got.code, got.out+got.err)
		require.Regexp(t, `(?s)^event `+first.ID.String()+`\n.*\nevent `+second.ID.String()+`\n`, got.out)
		require.NotContains(t, got.out, other.ID.String())

		report := decode[namedReport](t, r.run(t, "where", "--json", "42"))
		require.Equal(t, "42", report.AggregateID)
		require.Len(t, report.Events, 1)

		got = r.run(t, "where", "43")
		require.Equal(t, 1, got.code)
		require.Equal(t, "where: no row of aggregate 43: it made no event, or its rows are purged\n", got.out)
	})

	t.Run("NotRelayed", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		got := r.run(t, "where", e.ID.String())
		require.Equal(t, 1, got.code)
		require.Empty(t, got.err)
		require.Contains(t, got.out, "③ no slot "+r.slot)
		require.Contains(t, got.lastLine(), "where: last hop ②: committed, not seen on the stream, and there is no slot")
		require.Contains(t, got.out, "⑥ not on the bus")

		r.startRelay(t)()
		e = event("a", 2)
		r.commit(t, e)
		report := r.where(t, e)
		require.Equal(t, "②", report.LastHop)
		require.True(t, report.Slot.Exists)
		require.False(t, report.Slot.Active)
		require.Positive(t, report.Slot.Behind)
		require.Contains(t, report.lines(), "③ slot "+r.slot+": not active, reserved, confirmed to ")
		require.True(t, report.Read.Complete)
		require.Len(t, report.Read.Shards, 2, "it may be on the shard of another key")
	})

	t.Run("OnTheStreamTwice", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		first := r.putRecord(t, e, r.createdAt(t, e))
		r.putRecord(t, event("a", 2), r.createdAt(t, e))
		second := r.putRecord(t, e, r.createdAt(t, e), func(record *outbox.Record) { record.Replay = "r1"; record.Operation = outbox.OperationLoad })
		report := r.where(t, e)
		require.Equal(t, "④", report.LastHop)
		require.Len(t, report.Stream, 2)
		require.Equal(t, []string{first, second}, []string{report.Stream[0].Sequence, report.Stream[1].Sequence})
		require.Equal(t, "replay/r1", report.Stream[1].Replay)
		require.Equal(t, &commit{r.createdAt(t, e).Add(time.Millisecond).UTC(), "0/2A", 7}, report.Commit)
		require.Contains(t, report.lines(), second+", load, attempt 2 of 2, replay/r1")
		require.Nil(t, report.Slot)
		require.Len(t, report.Read.Shards, 1, "only the shard of its aggregate")
		require.NotContains(t, report.lines(), "partition key")

		limited, err := Where(t.Context(), r.setup, e.ID, 2)
		require.NoError(t, err)
		require.False(t, limited.Read.Complete)
		require.Len(t, limited.Stream, 1)
		require.Contains(t, limited.lines(), "④ there may be more")
	})

	t.Run("UnderAnotherPartitionKey", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		key := r.keyOfAnotherShard(t, "a")
		sequence := r.putUnder(t, key, recordOf(t, e, r.createdAt(t, e)))
		r.putRecord(t, event("a", 2), r.createdAt(t, e))

		report := r.where(t, e)
		require.Equal(t, "④", report.LastHop, report.lines())
		require.Len(t, report.Stream, 1)
		require.Equal(t, key, report.Stream[0].WrongKey)
		require.True(t, report.Stream[0].OtherShard)
		require.Contains(t, report.lines(), sequence+`, insert, under partition key "`+key+`" instead of its aggregate_id, not on the shard of its aggregate`)

		r.putRecord(t, e, r.createdAt(t, e), func(record *outbox.Record) { record.Replay = "r1" })
		require.Len(t, r.where(t, e).Stream, 2, "a replay has the right key, and does not hide the relay's record")

		limited, err := Where(t.Context(), r.setup, e.ID, 1)
		require.NoError(t, err)
		require.Equal(t, 1, limited.Read.Records, "the bound holds for all shards together")
		require.False(t, limited.Read.Complete)
	})

	t.Run("OnTheBusTwiceAndReplayed", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		r.putRecord(t, e, r.createdAt(t, e))
		r.publish(t, e, r.createdAt(t, e))
		r.publish(t, e, r.createdAt(t, e))
		r.publish(t, e, r.createdAt(t, e), "replay/r1")
		report := r.where(t, e)
		require.Len(t, report.Bus, 3)
		// Which comes third depends on the millisecond.
		require.Equal(t, 1, strings.Count(report.lines(), " of 3, replay/r1"))
		require.Equal(t, "on the bus 3 times", report.Says)
	})

	t.Run("HeldByASubscriber", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		first, early := event("a", 1), event("a", 3)
		r.commit(t, first, early)
		for _, e := range []outbox.Event{first, early} {
			r.putRecord(t, e, r.createdAt(t, e))
			r.publish(t, e, r.createdAt(t, e))
		}
		require.Empty(t, r.where(t, early).Held)
		for _, name := range []string{"carstats", "mailer"} {
			for _, e := range []outbox.Event{early, first} {
				if name == "mailer" && e.ID == first.ID {
					continue // it has got nothing but the early one
				}
				r.deliver(t, inbox.Ordered{Name: name}, e)
			}
		}
		report := r.where(t, early)
		require.Len(t, report.Held, 2)
		require.Equal(t, []heldBy{{"carstats", report.Held[0].Since, 2}, {"mailer", report.Held[1].Since, 1}}, report.Held)
		require.WithinDuration(t, time.Now(), report.Held[0].Since, time.Hour)
		require.Regexp(t, `⑥ \S+Z  held by subscriber carstats, which waits for version 2 `, report.lines())
		require.Equal(t, "on the bus, held by carstats for version 2, held by mailer for version 1", report.Says)
		printed := r.run(t, "where", "--json", early.ID.String())
		require.Zero(t, printed.code, "the path has done its part")
		require.Equal(t, report.Held, decode[WhereReport](t, printed).Held)
		require.Empty(t, r.where(t, first).Held)

		r.purge(t, early)
		require.Equal(t, report.Held, r.where(t, early).Held, "a purged row does not free it")
		r.deliver(t, inbox.Ordered{Name: "carstats"}, event("a", 2))
		require.Len(t, r.where(t, early).Held, 1)
		_, err := r.db.Pool.Exec(t.Context(), "DROP TABLE inbox_held")
		require.NoError(t, err)
		require.Empty(t, r.where(t, early).Held, "the subscribers may have a database of their own")
	})

	t.Run("Parked", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		r.putRecord(t, e, r.createdAt(t, e))
		r.park(t, event("b", 1))
		r.park(t, e)
		for range 2 { // a look takes nothing out
			got := r.run(t, "where", e.ID.String())
			require.Equal(t, 1, got.code)
			require.Contains(t, got.out, "in a failure queue: refused MalformedDetail Detail is malformed. (shardId-000000000000 1)")
			require.Contains(t, got.lastLine(), "where: last hop ⑤: parked, not on the bus: outboxctl redrive show "+e.ID.String())
		}
		received := r.where(t, e)
		out, err := sqs.NewFromConfig(r.config).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &r.setup.FailureQueue, MaxNumberOfMessages: 10})
		require.NoError(t, err)
		require.Len(t, out.Messages, 2)
		require.True(t, r.where(t, e).Unseen, "another operator holds them")
		r.setup.Peek = r.aws.ReadQueue
		require.Equal(t, received, r.where(t, e), "a program that can see into the queue sees them all the same")
		r.setup.FailureQueue += "-of-nobody"
		_, err = Where(t.Context(), r.setup, e.ID, 0)
		require.ErrorContains(t, err, "-of-nobody")
	})

	t.Run("GivenUpByLambda", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		sequence := r.putRecord(t, e, r.createdAt(t, e))
		body := `{"requestContext":{"condition":"RecordAgeExceeded"},"KinesisBatchInfo":{"shardId":"` + r.shardOf(t, "a") + `","startSequenceNumber":"` + sequence + `","endSequenceNumber":"` + sequence + `","batchSize":1}}`
		_, err := sqs.NewFromConfig(r.config).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &r.setup.DiscardQueue, MessageBody: &body})
		require.NoError(t, err)
		report := r.where(t, e)
		require.Equal(t, "⑤", report.LastHop)
		require.Equal(t, reasonDiscarded, report.Parked[0].Reason)
	})

	t.Run("Purged", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		createdAt := r.createdAt(t, e)
		r.putRecord(t, e, createdAt)
		r.publish(t, e, createdAt)
		r.purge(t, e)
		report := r.where(t, e)
		require.Nil(t, report.Row)
		require.Len(t, report.Read.Shards, 1, "the bus knows the aggregate")
		require.Len(t, report.Stream, 1)
		require.Equal(t, "⑥", report.LastHop)
		require.Contains(t, report.lines(), "② no row: never committed, rolled back, or purged")
	})

	t.Run("PurgedAndNotOnTheBus", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := event("a", 1)
		r.commit(t, e)
		r.putRecord(t, e, r.createdAt(t, e))
		r.purge(t, e)
		report := r.where(t, e)
		require.Len(t, report.Read.Shards, 2, "nothing tells which one")
		require.Len(t, report.Stream, 1)
		require.Equal(t, "④", report.LastHop)
	})

	t.Run("NeverSeen", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.commit(t, event("a", 1))
		for _, id := range []uuid.UUID{uuid.Must(uuid.NewV7()), uuid.New()} {
			got := r.run(t, "where", id.String())
			require.Equal(t, 1, got.code)
			require.Empty(t, got.err)
			require.Contains(t, got.lastLine(), "where: last hop -: nowhere: never committed")
			require.Contains(t, r.run(t, "where", "--json", id.String()).out, `"bus": []`)
		}
	})

	t.Run("AnotherEventThatNamesIt", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e, naming := event("a", 1), event("a", 2)
		naming.Data = json.RawMessage(`{"causedBy":"` + e.ID.String() + `"}`)
		r.commit(t, e, naming)
		r.publish(t, naming, r.createdAt(t, naming))
		require.Empty(t, r.where(t, e).Bus)
	})

	t.Run("WrongUse", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		for _, args := range [][]string{{"where"}, {"where", uuid.NewString(), uuid.NewString()}, {"where", uuid.NewString(), "--max-records", "-1"}} {
			require.Equal(t, 2, r.run(t, args...).code)
		}
	})
}

func TestStreamReader(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *awslocal.Config) { c.Streams = []awslocal.Stream{{Name: testStream, Shards: 7}} })
	reader := newStreamReader(r.setup)
	sequences := map[string][]string{} // by shard
	for _, key := range []string{"a", "b", "c", "d", "e", "ü", "a", "b", "a"} {
		out, err := kinesis.NewFromConfig(r.config).PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String(testStream), PartitionKey: &key, Data: []byte(key)})
		require.NoError(t, err)
		require.Equal(t, *out.ShardId, r.shardOf(t, key), "Kinesis chose the same for %q", key)
		sequences[*out.ShardId] = append(sequences[*out.ShardId], *out.SequenceNumber)
	}
	for shard, want := range sequences {
		var got []string
		collect := func(record kinesistypes.Record) error {
			got = append(got, *record.SequenceNumber)
			return nil
		}
		require.NoError(t, reader.read(t.Context(), shard, position{at: time.Unix(0, 0)}, collect))
		require.Equal(t, want, got)
		got = nil
		last := want[len(want)-1]
		require.NoError(t, reader.read(t.Context(), shard, position{sequence: last}, collect))
		require.Equal(t, []string{last}, got)
		got = nil
		require.NoError(t, reader.read(t.Context(), shard, position{at: time.Unix(0, 0)}, func(record kinesistypes.Record) error {
			_ = collect(record)
			return errStop
		}))
		require.Len(t, got, 1)
	}
}
