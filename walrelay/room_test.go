package walrelay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
)

// Of a room of 100 bytes, 10 were used before the load, and 100 rows have to go.
func TestALoadIsGivenUpOnlyWhenItWillNotFit(t *testing.T) {
	t.Parallel()
	const total = 100
	for name, tc := range map[string]struct {
		retained, accepted int64
		unlimited, fits    bool
	}{
		"AtTheStart":            {retained: 10, fits: true},
		"ABurstProvesLittle":    {retained: 54, fits: true},
		"HalfOfTheRoomForNoRow": {retained: 55, fits: false},
		"NoLimit":               {retained: 55, unlimited: true, fits: true},
		"HalfForLessThanHalf":   {retained: 55, accepted: 49, fits: false},
		"HalfForHalf":           {retained: 55, accepted: 50, fits: true},
		"AlmostAllForAlmostAll": {retained: 90, accepted: 90, fits: true},
		"AllOfItBeforeTheEnd":   {retained: 100, accepted: 98, fits: false},
		"AllOfItForAll":         {retained: 100, accepted: 100, fits: true},
	} {
		slot := func(retained int64) dbgen.SlotHealthRow {
			if tc.unlimited {
				return dbgen.SlotHealthRow{Retained: retained, SafeWalSize: -1}
			}
			return dbgen.SlotHealthRow{Retained: retained, SafeWalSize: 100 - retained}
		}
		var m room
		m.looked(slot(10))
		m.looked(slot(tc.retained))
		require.Equal(t, tc.fits, m.fits(tc.accepted, total), name)
	}
}
