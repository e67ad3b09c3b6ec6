package cdcconsumer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// PutEvents goes on answering with success after the bus was deleted.
func TestABusThatIsDeletedIsNoticed(t *testing.T) {
	t.Parallel()

	t.Run("AndBlocksTheShard", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			require.Equal(t, -1, b.handle(t, 30*time.Second, batch(car("a", 1))))
			require.Zero(t, b.looks, "CheckBus has just looked")
			time.Sleep(busInterval)
			b.describe = func() answer { return answer{status: 400, code: "ResourceNotFoundException"} }
			for look := range 3 {
				require.Equal(t, 1, b.handle(t, 30*time.Second, batch(control, car("a", 2), []byte("poison"), car("b", 1))))
				require.Equal(t, look+1, b.looks, "each batch looks until the bus is there")
			}
			require.Empty(t, b.parked)
			require.Contains(t, b.log.String(), `"the bus is gone`)
			b.describe = nil
			require.Equal(t, -1, b.handle(t, 30*time.Second, batch(car("a", 2), car("b", 1))))
			require.Equal(t, -1, b.handle(t, 30*time.Second, batch(car("a", 3))))
			require.Equal(t, 4, b.looks, "seen a moment ago")
		})
	})

	t.Run("ButALookThatFailsSaysNothing", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			time.Sleep(busInterval)
			b.describe = func() answer { return answer{status: 400, code: "ThrottlingException"} }
			require.Equal(t, -1, b.handle(t, 30*time.Second, batch(car("a", 1))))
			require.NotZero(t, b.looks)
			require.Contains(t, b.log.String(), "looking for the bus")
		})
	})
}
