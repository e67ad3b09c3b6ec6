package postgres

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not running as root")
	}
	binaries := findBinaries(t)

	for _, as := range accounts() {
		t.Run("Runs As "+as.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Dir: tempDir(t), Binaries: binaries}
			if err := as.command(t.Context(), "/bin/sh", "-c", ":").Run(); err != nil {
				t.Skipf("this machine forbids it: %v", err)
			}
			server := mustStartAs(t, cfg, []account{as})
			query(t, server.URL(), "INSERT INTO kept VALUES (1) RETURNING 1")
			info, err := os.Stat(dataDir(cfg.Dir))
			require.NoError(t, err)
			require.EqualValues(t, as.uid, info.Sys().(*syscall.Stat_t).Uid)
			require.NoError(t, server.Stop(t.Context()))

			// Next time it runs as each of the others, as in a container that does not allow what
			// this machine does.
			for _, other := range accounts() {
				if other.command(t.Context(), "/bin/sh", "-c", ":").Run() != nil {
					continue
				}
				server := mustStartAs(t, cfg, []account{other})
				require.Equal(t, "1", query(t, server.URL(), "SELECT count(*) FROM kept"))
				require.NoError(t, server.Stop(t.Context()))
			}
		})
	}

	t.Run("FallsBackToTheNext", func(t *testing.T) {
		t.Parallel()
		forbidden := account{name: "nobody we know", uid: -1, gid: -1, attr: syscall.SysProcAttr{Chroot: filepath.Join(tempDir(t), "absent")}}
		server := mustStartAs(t, Config{Dir: tempDir(t), Binaries: binaries}, append([]account{forbidden}, accounts()...))
		require.Equal(t, "1", query(t, server.URL(), "SELECT 1"))
	})

	t.Run("NoWayIsAClearError", func(t *testing.T) {
		t.Parallel()
		out := filepath.Join(tempDir(t), "closed", "dir") // as below /root
		require.NoError(t, os.MkdirAll(out, 0o700))
		require.NoError(t, os.Chmod(filepath.Dir(out), 0o700))
		nobody := accounts()[len(accounts())-1]
		_, err := start(t.Context(), Config{Dir: out, Binaries: binaries}, []account{nobody})
		require.ErrorContains(t, err, "as user nobody")
		require.ErrorContains(t, err, "can't cd to "+out)
		require.ErrorContains(t, err, "start as an ordinary user")
	})
}
