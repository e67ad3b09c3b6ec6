package carapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

func TestErrorsBecomeAnswers(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	for name, test := range map[string]struct {
		ctx    context.Context
		err    error
		status int
	}{
		"PayloadIsTheClients":       {t.Context(), &outbox.InvalidEventError{Field: "event_data", Reason: "is too long"}, 400},
		"RestOfTheEventIsOurs":      {t.Context(), &outbox.InvalidEventError{Field: "aggregate_version", Reason: "is 0"}, 500},
		"ClientGone":                {gone, context.Canceled, 499},
		"FaultWhileTheClientIsGone": {gone, errors.New("disk full"), 500},
		"CancelledByUs":             {t.Context(), context.Canceled, 500},
		"TooLate":                   {t.Context(), context.DeadlineExceeded, 500},
		"Health":                    {t.Context(), &unhealthyError{errors.New("away")}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.status, answerTo(test.ctx, fmt.Errorf("updating a car: %w", test.err)).status)
		})
	}
}
