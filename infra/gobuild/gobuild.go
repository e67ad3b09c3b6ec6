// Package gobuild builds the programs that leave this machine. They are the Lambda functions, the
// programs of walrelay's image, and those of a release. It packs them, and lists what they are made
// of. The same sources and Go release give the same bytes.
package gobuild

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Build builds the main package in folder for goos and arch (arm64 or amd64) into the file binary.
// The flags are those of go build. A deployment must not take an unchanged program for a new one,
// so this checkout's commit is not in the binary unless a flag says so.
func Build(binary, folder, goos, arch string, flags ...string) error {
	if arch != "arm64" && arch != "amd64" {
		return fmt.Errorf("architecture %q: set it to arm64 or amd64", arch)
	}
	// -trimpath, -buildvcs and -buildid keep this machine's paths and this checkout's commit out of
	// the binary. lambda.norpc leaves out the protocol of the go1.x runtime.
	arguments := slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-tags=lambda.norpc", "-ldflags=-s -w -buildid="}, flags,
		[]string{"-o", binary, "./" + filepath.ToSlash(folder)})
	command := exec.Command("go", arguments...) //nolint:gosec,noctx // packages named by the caller
	command.Env = append(command.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}
