package judge

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestTallyKeepsLittle(t *testing.T) {
	t.Parallel()
	tally := NewTally()
	tally.Begin(time.Unix(1, 0))
	// Ten minutes without a relay, and then the events of it.
	for at := int64(1); at <= 600; at++ {
		tally.Committed(map[int64]int64{at: 50}, at+1)
	}
	require.Len(t, tally.seconds, 600)
	for _, s := range tally.seconds {
		require.Empty(t, s.arrived)
	}
	entry := func(n int) awslocal.BusEvent {
		id := uuid.UUID{8: byte(n >> 24), 9: byte(n >> 16), 10: byte(n >> 8), 11: byte(n), 15: 1}
		at := time.Unix(int64(1+n/50), 0).UTC().Format(time.RFC3339)
		return awslocal.BusEvent{Detail: json.RawMessage(fmt.Sprintf(`{"eventId":%q,"aggregateId":"%d","aggregateVersion":1,"timestamp":%q}`, id, n, at))}
	}
	for n := range 600 * 50 {
		_, first := tally.Arrived(entry(n))
		require.True(t, first)
	}
	require.Empty(t, tally.seconds)
	require.LessOrEqual(t, len(tally.order.young)+len(tally.order.old), 2*maxOrder)
	require.Equal(t, Counts{Committed: 600 * 50, OnBus: 600 * 50}, tally.Counts())
	_, first := tally.Arrived(entry(1))
	require.False(t, first, "it is remembered nowhere, and a duplicate all the same")
	require.EqualValues(t, 1, tally.Counts().Duplicates)
}
