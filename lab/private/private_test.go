package private

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFolderIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "data")
	require.NoError(t, Folder(dir))
	for _, folder := range []string{"stream", "data"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o755))
		for _, name := range []string{folder + "/file", folder + "-file", folder + "/program"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o644))
		}
		require.NoError(t, os.Chmod(filepath.Join(dir, folder, "program"), 0o755))
	}
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, nil, 0o600))
	require.NoError(t, os.Chmod(outside, 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	require.NoError(t, os.Chmod(dir, 0o755))

	require.NoError(t, Folder(dir))
	for name, want := range map[string]os.FileMode{
		"": 0o700, "stream": 0o700, "stream/file": 0o600, "stream-file": 0o600, "stream/program": 0o700,
		"data": 0o755, "data/file": 0o644, "link": 0o644,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), name)
	}
}
