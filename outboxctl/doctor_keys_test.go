package outboxctl

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

func TestDoctorOfPartitionKeys(t *testing.T) {
	t.Parallel()
	type put struct {
		key, aggregate string
		version        int
	}
	for name, tc := range map[string]struct {
		shards   int
		puts     []put
		state    state
		contains string
	}{
		"NothingIsThere":    {2, nil, stateOK, "no event on the stream"},
		"AllAreRight":       {2, []put{{"a", "a", 1}, {"b", "b", 1}, {"a", "a", 2}}, stateOK, "aggregate_id, in 3 events that were looked at"},
		"ByEvent":           {2, []put{{"1", "a", 1}, {"2", "a", 2}}, stateFail, `2 of 2 events that were looked at have another key than aggregate_id, such as "2". Aggregate "a" has several keys`},
		"RightOnlySometime": {2, []put{{"a", "a", 1}, {"2", "a", 2}}, stateFail, "their order is lost"},
		"ByTable":           {2, []put{{"public.outbox", "a", 1}, {"public.outbox", "b", 1}}, stateWarn, "the order is kept, but all events have 1 key"},
		"ByTypeAndID":       {2, []put{{"Car.a", "a", 1}, {"Car.b", "b", 1}, {"Car.a", "a", 2}}, stateWarn, "No aggregate was seen with two keys"},
		"NotKnown":          {2, []put{{"1", "a", 1}, {"2", "b", 1}}, stateFail, "No aggregate was seen twice"},
		"OneShard":          {1, []put{{"1", "a", 1}, {"2", "a", 2}}, stateWarn, "one shard, which keeps the order"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *awslocal.Config) { c.Streams[0].Shards = tc.shards })
			for _, p := range tc.puts {
				r.putUnder(t, p.key, recordOf(t, event(p.aggregate, p.version), time.Now()))
			}
			requireOnly(t, r.doctor().services(t.Context()), tc.state, "partition key", tc.contains)
		})
	}

	t.Run("ReplaysAndWhatIsNotOursDoNotCount", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.putUnder(t, "x", []byte("not a record"))
		r.putUnder(t, "x", recordOf(t, event("a", 1), time.Now(), func(record *outbox.Record) { record.Replay = "r1" }))
		requireOnly(t, r.doctor().services(t.Context()), stateOK, "partition key", "no event on the stream")
	})

	t.Run("AQuietStream", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.putUnder(t, "1", recordOf(t, event("a", 1), time.Now()))
		d := r.doctor()
		d.now = func() time.Time { return time.Now().Add(2 * time.Hour) } // the record is older than an hour
		found := d.services(t.Context())
		require.Equal(t, stateFail, named(found, "partition key")[0].State, "%v", found)
	})
}
