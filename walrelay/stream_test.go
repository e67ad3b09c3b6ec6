package walrelay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The server cuts off a client from which it hears nothing for wal_sender_timeout.
func TestIntervalsFollowWALSenderTimeout(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration][2]time.Duration{
		0:                      {reportInterval, minPatience},
		600 * time.Millisecond: {200 * time.Millisecond, minPatience},
		time.Minute:            {reportInterval, 3 * time.Minute},
	} {
		status, patience := intervals(reportInterval, timeout)
		require.Equal(t, want, [2]time.Duration{status, patience}, timeout)
	}
}
