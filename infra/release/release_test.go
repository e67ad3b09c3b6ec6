// Packing programs with the race detector takes a minute. `make test` runs these tests without it.
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRelease releases programs that do nothing, from a repository that looks like ours. That is
// the whole release but for two of its platforms, and it builds only Go's runtime, which takes ten
// seconds a platform.
func TestRelease(t *testing.T) {
	require.Len(t, platforms, 4)
	platforms = platforms[1:3]
	root := t.TempDir()
	t.Chdir(root)
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o750))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	git := func(args ...string) {
		identity := []string{"-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"}
		out, err := exec.CommandContext(t.Context(), "git", append(identity, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	write("go.mod", "module rds-outbox-demo\n")
	write("LICENSE", "free\n")
	write("NOTICES.md", "others\n")
	for _, folder := range programs {
		write(filepath.Join(folder, "main.go"), "package main\n\nfunc main() {}\n")
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-qm", "all")

	out := t.TempDir()
	require.ErrorContains(t, run(out, "v1.2.3"), "not v1.2.3: commit everything and tag it", "no tag")
	git("tag", "v1.2.3")
	write("LICENSE", "not free\n")
	require.ErrorContains(t, run(out, "v1.2.3"), "this commit is v1.2.3+dirty", "a change")
	git("checkout", "-q", "LICENSE")
	require.NoError(t, run(out, "v1.2.3"))

	sums, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(sums)), "\n")
	require.Len(t, lines, 2*2)
	for _, line := range lines {
		_, name, _ := strings.Cut(line, "  ")
		content, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%x  %s", sha256.Sum256(content), name), line)
	}

	for _, platform := range platforms {
		name := filepath.Join(out, "rds-outbox-demo_"+platform[0]+"_"+platform[1])
		require.Equal(t, map[string]int64{"LICENSE": 0o444, "NOTICES.md": 0o444, "walrelay": 0o555, "outboxctl": 0o555, "migrate": 0o555}, modes(t, name+".tar.gz"))
		var bill struct {
			Metadata struct {
				Component struct {
					Version string
					Hashes  []struct{ Content string }
				}
			}
			Components []struct{ Purl string }
		}
		text, err := os.ReadFile(name + ".cdx.json")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &bill))
		require.Equal(t, "v1.2.3", bill.Metadata.Component.Version)
		require.Contains(t, string(sums), bill.Metadata.Component.Hashes[0].Content+"  "+filepath.Base(name)+".tar.gz")
		require.Equal(t, "pkg:golang/stdlib@"+runtime.Version(), bill.Components[0].Purl)
	}

	// Another folder and files with other times give the same bytes.
	elsewhere, again := t.TempDir(), t.TempDir()
	git("clone", "-q", root, elsewhere)
	t.Chdir(elsewhere)
	require.NoError(t, run(again, "v1.2.3"))
	same, err := os.ReadFile(filepath.Join(again, "SHA256SUMS"))
	require.NoError(t, err)
	require.Equal(t, string(sums), string(same))

	require.ErrorContains(t, run("", ""), "usage: release -out folder")
}

// modes returns the names and modes of an archive's files.
func modes(t *testing.T, path string) map[string]int64 {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	require.NoError(t, err)
	found := map[string]int64{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		found[header.Name] = header.Mode
	}
}
