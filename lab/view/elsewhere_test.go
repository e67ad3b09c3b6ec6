package view

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
	"rds-outbox-demo/lab/local"
)

// With external services there is no journal, no end of a shard and no subscriber. The view shows
// what can be known, calls no event lost before it has had time, and lets nothing be broken.
func TestServicesOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	_, aws := awstest.Start(t, awslocal.Config{
		Streams: []awslocal.Stream{{Name: "theirs", Shards: 1}}, Buses: []string{"their-bus"}, Queues: []string{"their-failures"},
	})
	url := *aws.BaseEndpoint
	config := local.Services{
		KinesisURL: url, Stream: "theirs", EventBridgeURL: url, Bus: "their-bus",
		SQSURL: url, FailureQueueURL: awslocal.QueueURL(url, "their-failures"),
	}
	dir := t.TempDir()
	r := newRig(t, dir, config)
	require.NoError(t, r.create(t.Context(), 20))
	r.requireTotals(t, totals{Cars: 20, Committed: 20, OnBus: 20})
	f := r.frame()
	require.Equal(t, 6, f.Events[0].Hop)
	require.Contains(t, f.Events[0].Ms, "bus")
	all, _ := r.seen(t, f.Events[0].ID)
	require.NotNil(t, all.Record)
	require.Equal(t, "their-bus", all.Entry.EventBusName)
	require.Nil(t, all.Subscriber)
	got := r.ask(t, http.MethodGet, "/events/"+f.Events[0].ID.String()+"/where", "")
	require.Equal(t, http.StatusNotFound, got.status)
	require.Contains(t, got.body, "BUS_LOG_GROUP", "only its owner knows where their bus writes")
	for _, d := range r.switches.definitions() {
		require.Equal(t, d.Name != "stop-postgres" && d.Name != "kill-relay" && d.Name != "two-relays" && d.Name != "drop-slot", d.Disabled != "", d.Name)
	}
	r.path.Relay.Stop(t.Context())
	require.NoError(t, r.create(t.Context(), 3))
	r.requireTotals(t, totals{Cars: 23, Committed: 23, OnBus: 20, OnTheWay: 3})
	require.NoError(t, r.path.Relay.Start())
	r.requireTotals(t, totals{Cars: 23, Committed: 23, OnBus: 23})
	r.end()
	r = newRig(t, dir, config)
	require.NoError(t, r.create(t.Context(), 2))
	r.requireTotals(t, totals{Cars: 2, Committed: 2, OnBus: 2})
}
