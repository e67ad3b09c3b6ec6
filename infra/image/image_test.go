package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
)

// repository starts a registry and returns the name of a repository in it, and the calls that the registry gets.
func repository(t *testing.T) (name string, calls func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	handler := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/demo/walrelay", func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), seen...)
	}
}

// build runs the command from the module's root for this machine.
func build(t *testing.T, out, repository string) (digest string) {
	t.Helper()
	t.Chdir(filepath.Join("..", ".."))
	var stdout bytes.Buffer
	require.NoError(t, run(out, repository, runtime.GOARCH, strings.NewReader("secret\n"), &stdout))
	return strings.TrimSpace(stdout.String())
}

func TestImage(t *testing.T) {
	where, calls := repository(t)
	out := t.TempDir()
	digest := build(t, out, where)
	bill, err := os.ReadFile(filepath.Join(out, "walrelay.cdx.json"))
	require.NoError(t, err)
	reference, err := name.NewDigest(where + "@" + digest)
	require.NoError(t, err)
	image, err := remote.Image(reference)
	require.NoError(t, err)

	t.Run("RunsWalrelayAsANumberedUser", func(t *testing.T) {
		config, err := image.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "linux", config.OS)
		require.Equal(t, runtime.GOARCH, config.Architecture)
		require.Equal(t, []string{"/walrelay"}, config.Config.Entrypoint)
		require.Equal(t, "65532:65532", config.Config.User)
		require.Empty(t, config.Config.Env)
	})
	t.Run("HoldsTwoProgramsAndRootsAndNothingElse", func(t *testing.T) {
		modes := map[string]int64{}
		for header := range unpacked(t, image) {
			modes[header.Name] = header.Mode
		}
		require.Equal(t, map[string]int64{"walrelay": 0o555, "outboxctl": 0o555, "rds-ca-bundle.pem": 0o444}, modes)
	})
	t.Run("BillNamesTheModules", func(t *testing.T) {
		var parsed struct {
			BOMFormat string `json:"bomFormat"`
			Metadata  struct{ Component struct{ Version string } }
			// A scanner looks up vulnerabilities by package URL.
			Components []struct{ Purl string }
		}
		require.NoError(t, json.Unmarshal(bill, &parsed))
		require.Equal(t, "CycloneDX", parsed.BOMFormat)
		require.Equal(t, digest, parsed.Metadata.Component.Version)
		var all []string
		for _, component := range parsed.Components {
			all = append(all, component.Purl)
		}
		require.Contains(t, strings.Join(all, "\n"), "pkg:golang/github.com/jackc/pgx/v5@v")
		require.Contains(t, all, "pkg:golang/stdlib@"+runtime.Version())
	})
	t.Run("ItsTagIsItsDigest", func(t *testing.T) {
		tags, err := remote.List(reference.Context())
		require.NoError(t, err)
		require.Equal(t, []string{strings.TrimPrefix(digest, "sha256:")}, tags)
	})
	t.Run("SecondBuildIsTheSameAndIsNotPushed", func(t *testing.T) {
		before := len(calls())
		again := t.TempDir()
		t.Chdir("infra/image") // build starts from the package's folder
		require.Equal(t, digest, build(t, again, where))
		for _, call := range calls()[before:] {
			require.True(t, strings.HasPrefix(call, "GET /v2/") || strings.HasPrefix(call, "HEAD /v2/demo/walrelay/manifests/"), call)
		}
		same, err := os.ReadFile(filepath.Join(again, "walrelay.cdx.json"))
		require.NoError(t, err)
		require.Equal(t, string(bill), string(same))
	})
}

// unpacked yields the files of the image's only layer.
func unpacked(t *testing.T, image v1.Image) func(yield func(*tar.Header, io.Reader) bool) {
	t.Helper()
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	content, err := layers[0].Uncompressed()
	require.NoError(t, err)
	t.Cleanup(func() { _ = content.Close() })
	files := tar.NewReader(content)
	return func(yield func(*tar.Header, io.Reader) bool) {
		for {
			header, err := files.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			require.NoError(t, err)
			if !yield(header, files) {
				return
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][3]string{
		"usage: image -out folder":          {"", "", runtime.GOARCH},
		`architecture "riscv64": set it to`: {t.TempDir(), "", "riscv64"},
	} {
		err := run(args[0], args[1], args[2], strings.NewReader(""), io.Discard)
		require.ErrorContains(t, err, want)
	}
	// A registry that refuses the password must not be taken for one without the image.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(server.Close)
	image, err := assemble(map[string]string{"main.go": "main.go"}, "arm64")
	require.NoError(t, err)
	digest, err := image.Digest()
	require.NoError(t, err)
	require.ErrorContains(t, push(image, strings.TrimPrefix(server.URL, "http://")+"/x", digest, strings.NewReader("wrong")), "403")
}
