package plural

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0 events", Of(0, "event"))
	require.Equal(t, "1 event", Of(1, "event"))
	require.Equal(t, "2 events", Of(int64(2), "event"))
}
