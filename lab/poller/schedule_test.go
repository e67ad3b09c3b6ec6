package poller

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"
)

// The function is invoked again and again, whatever it answers, with an event that has no messages.
func TestSchedule(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var payloads [][]byte
	schedule := Schedule{
		Rate: time.Millisecond, FunctionTimeout: time.Minute, Log: slog.New(slog.DiscardHandler),
		Function: func(_ context.Context, payload []byte) ([]byte, error) {
			if payloads = append(payloads, payload); len(payloads) == 3 {
				cancel()
			}
			return nil, errors.New("no")
		},
	}
	schedule.Run(ctx)
	require.Len(t, payloads, 3)
	for _, payload := range payloads {
		var event events.EventBridgeEvent
		require.NoError(t, json.Unmarshal(payload, &event))
		require.Equal(t, "Scheduled Event", event.DetailType)
		require.Equal(t, "aws.events", event.Source)
		var batch events.SQSEvent
		require.NoError(t, json.Unmarshal(payload, &batch))
		require.Empty(t, batch.Records)
	}
}
