package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// packaged returns a folder of binaries in a package of the test's own.
func packaged(t *testing.T) string {
	t.Helper()
	binaries := filepath.Join(tempDir(t), "native")
	require.NoError(t, os.Symlink(findBinaries(t), binaries))
	return binaries
}

func TestThrowAwayServersCopyATemplate(t *testing.T) {
	t.Parallel()
	binaries := packaged(t)
	of := func(durable bool) (identifier, password string) {
		cfg := Config{Dir: tempDir(t), Binaries: binaries, Durable: durable}
		server := mustStart(t, cfg)
		content, err := os.ReadFile(passwordFile(cfg.Dir))
		require.NoError(t, err)
		return query(t, server.URL(), "SELECT system_identifier::text FROM pg_control_system()"), string(content)
	}
	durable, secret := of(true)
	require.NoDirExists(t, filepath.Join(filepath.Dir(binaries), "initialized"), "data of a user's own has no copy")

	first, password := of(false)
	require.NotEqual(t, durable, first)
	require.NotEqual(t, secret, password)
	second, same := of(false)
	require.Equal(t, first, second, "initdb ran again")
	require.Equal(t, password, same)
	info, err := os.Stat(filepath.Join(filepath.Dir(binaries), "initialized"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	other, _ := of(true)
	require.NotEqual(t, first, other)
	require.NotEqual(t, durable, other)
}

func TestABrokenTemplateIsNamed(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: tempDir(t), Binaries: packaged(t)}
	broken := template(cfg)
	require.NoError(t, os.Mkdir(broken, 0o700))
	require.NoError(t, os.WriteFile(passwordFile(broken), []byte("secret\n"), 0o600))
	_, err := Start(t.Context(), cfg)
	require.ErrorContains(t, err, broken)
	require.NotContains(t, err.Error(), "secret")
}

func TestAServerNeedsNoTemplate(t *testing.T) {
	t.Parallel()
	cfg := Config{Binaries: packaged(t)}
	// A folder that nobody may write in does not stop root. A file in the template's place does.
	require.NoError(t, os.WriteFile(template(cfg), nil, 0o600))
	for range 2 {
		cfg.Dir = tempDir(t)
		server := mustStart(t, cfg)
		require.Equal(t, "1", query(t, server.URL(), "SELECT 1"))
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.Binaries), "initialized.new-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
