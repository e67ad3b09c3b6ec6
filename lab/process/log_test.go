package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dev.log")
	require.NoError(t, os.WriteFile(path, []byte("of the run before\n"), 0o600))
	l, err := OpenLog(path)
	require.NoError(t, err)
	before, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, "of the run before\n", string(before))
	l.max = 100
	for i := range 20 {
		_, err := fmt.Fprintf(l, "line %02d ..........\n", i) // 19 bytes
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	before, err = os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(before), "line 10 ") && strings.HasPrefix(string(now), "line 15 ") && strings.Contains(string(now), "line 19 "))
	_, err = l.Write([]byte("x"))
	require.Error(t, err, "the log must not fail in silence")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

// A pipe gives lines in pieces. None of them is cut by a rotation, and none is missed.
func TestLogKeepsLinesWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path)
	require.NoError(t, err)
	l.max = 50
	var said []string
	l.said = func(line []byte) { said = append(said, string(line)) }
	for _, piece := range []string{strings.Repeat("a", 40), strings.Repeat("b", 40), "c\nd", "ef\n\ngh", "i"} {
		n, err := l.Write([]byte(piece))
		require.NoError(t, err)
		require.Len(t, piece, n)
	}
	require.Equal(t, []string{strings.Repeat("a", 40) + strings.Repeat("b", 40) + "c", "def"}, said)
	require.Equal(t, "ghi", l.LastLine())
	require.NoError(t, l.Close())
	before, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, said[0]+"\n", string(before))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "def\n\nghi", string(now))
}
