package main

import (
	"bytes"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"rds-outbox-demo/infra/gobuild"
)

// programs are the image's programs, by name, with their main packages.
var programs = map[string]string{"walrelay": "walrelay/cmd/walrelay", "outboxctl": "outboxctl/cmd/outboxctl"}

// user is a number, because an empty base has no /etc/passwd to look up a name.
const user = "65532:65532"

// assemble makes an image of one layer. files maps names at the image's root to files of this machine.
func assemble(files map[string]string, arch string) (v1.Image, error) {
	content, err := gobuild.Archive(files)
	if err != nil {
		return nil, err
	}
	// Without the cache it would be compressed once for its digest and once more for the registry.
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
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
