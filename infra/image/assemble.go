package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// programs are the image's programs, by name, with their main packages.
var programs = map[string]string{"walrelay": "walrelay/cmd/walrelay", "outboxctl": "outboxctl/cmd/outboxctl"}

// user is a number, because an empty base has no /etc/passwd in which to look up a name.
const user = "65532:65532"

// assemble makes an image of one layer. files maps names at the image's root to files of this machine.
func assemble(files map[string]string, arch string) (v1.Image, error) {
	content, err := archive(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config.Entrypoint, config.Config.User = []string{"/walrelay"}, user
	return mutate.ConfigFile(image, config)
}

// archive packs the files in order of name, with the time 0: the time of the build would make every image a new one.
func archive(files map[string]string) ([]byte, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: name, Mode: 0o444, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if programs[name] != "" {
			header.Mode = 0o555
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
