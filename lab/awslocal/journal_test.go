package awslocal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What follows a half-written line may replace it, so its length says nothing of what was accepted.
func TestBusEndIsAfterWholeLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir, 1<<20, nil)
	require.NoError(t, err)
	end, err := BusEnd(dir)
	require.NoError(t, err)
	require.Zero(t, end)

	require.NoError(t, j.add([]BusEvent{{ID: "1"}, {ID: "2"}}))
	end, err = BusEnd(dir)
	require.NoError(t, err)
	var ends []int64
	next, err := ReadBusFrom(dir, 0, func(_ BusEvent, end int64) error {
		ends = append(ends, end)
		return nil
	})
	require.NoError(t, err)
	require.Len(t, ends, 2)
	require.Equal(t, []int64{end, next}, []int64{ends[1], ends[1]})

	_, err = j.log.WriteString(`{"eventId":`)
	require.NoError(t, err)
	half, err := BusEnd(dir)
	require.NoError(t, err)
	require.Zero(t, half)
	require.NoError(t, j.close())
	_, err = BusEnd(filepath.Join(dir, "nowhere"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
