package walrelay_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/failpoint"
)

// SIGKILL comes exactly between two steps, at each point. The next relay sends every event in order, and
// duplicates are equal.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		point failpoint.Point
		hit   int
		slot  bool // whether the slot is there when the relay is dead
	}{
		{failpoint.RelayBeforeSlotCopy, 1, false},
		{failpoint.RelayAfterSlotCopy, 1, true},
		{failpoint.RelayBeforePut, 1, false}, // of the load
		{failpoint.RelayAfterPut, 1, false},
		{failpoint.RelayBeforePut, 6, true}, // a call of the stream, because the load takes fewer calls
		{failpoint.RelayAfterPut, 6, true},
		{failpoint.RelayBeforeConfirm, 2, true},
		{failpoint.RelayAfterConfirm, 2, true},
	} {
		t.Run(fmt.Sprintf("%s/%d", tc.point, tc.hit), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.append(t, "a", 5, 1, 1) // one call, with one row of each of five aggregates
			dead := r.spawnWithFailpoint(t, tc.point, tc.hit)
			version := 1
			r.eventually(t, "the relay to be killed at "+string(tc.point), func() bool {
				select {
				case <-dead:
					return true
				default:
				}
				if _, exists := r.slotState(t); exists {
					version++
					r.append(t, "a", 5, version, version)
				}
				return false
			})
			_, exists := r.slotState(t)
			require.Equal(t, tc.slot, exists)

			version++
			r.append(t, "a", 5, version, version)
			r.spawn(t)
			r.requireWhole(t, r.await(t, 5*version))
		})
	}
}
