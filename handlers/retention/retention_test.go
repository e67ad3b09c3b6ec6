package retention_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/retention"
)

func TestConfigurationIsRefusedByName(t *testing.T) {
	t.Parallel()
	const week = 168 * time.Hour
	for name, test := range map[string]struct {
		config  retention.Config
		message string
	}{
		"Defaults":            {retention.Config{Slot: "relay", Days: 14, StreamRetention: week}, ""},
		"DayAboveTheLimit":    {retention.Config{Slot: "relay", Days: 9, StreamRetention: week}, ""},
		"DaysAtTheLimit":      {retention.Config{Slot: "relay", Days: 8, StreamRetention: week}, "RETENTION_DAYS (Days) is 8: set it above 8, the stream's retention and a day"},
		"DaysBelowTheLimit":   {retention.Config{Slot: "relay", Days: 7, StreamRetention: week}, "RETENTION_DAYS (Days) is 7: set it above 8"},
		"DaysOfAShortStream":  {retention.Config{Slot: "relay", Days: 3, StreamRetention: 25 * time.Hour}, ""},
		"DaysAtAnOddLimit":    {retention.Config{Slot: "relay", Days: 2, StreamRetention: 25 * time.Hour}, "RETENTION_DAYS (Days) is 2: set it above 2.04"},
		"DaysMissing":         {retention.Config{Slot: "relay", StreamRetention: week}, "RETENTION_DAYS (Days) is 0"},
		"DaysNegative":        {retention.Config{Slot: "relay", Days: -14, StreamRetention: week}, "RETENTION_DAYS (Days) is -14"},
		"DaysThatOverflow":    {retention.Config{Slot: "relay", Days: 1 << 40, StreamRetention: week}, "to 36500 at most"},
		"StreamRetentionNone": {retention.Config{Slot: "relay", Days: 14}, "(StreamRetention) is 0s"},
		"SlotMissing":         {retention.Config{Days: 14, StreamRetention: week}, `SLOT_NAME (Slot) is ""`},
		"SlotNoName":          {retention.Config{Slot: "Relay-1", Days: 14, StreamRetention: week}, `SLOT_NAME (Slot) is "Relay-1"`},
		"BatchNegative":       {retention.Config{Slot: "relay", Days: 14, StreamRetention: week, Batch: -1}, "(Batch) is -1"},
		"BatchTooLarge":       {retention.Config{Slot: "relay", Days: 14, StreamRetention: week, Batch: 10_001}, "(Batch) is 10001"},
		"WaitNegative":        {retention.Config{Slot: "relay", Days: 14, StreamRetention: week, Wait: -1}, "(Wait) is -1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := retention.New(test.config)
			if test.message == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "configuring retention: ")
			require.ErrorContains(t, err, test.message)
		})
	}
}
