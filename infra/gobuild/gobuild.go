// Package gobuild builds the programs that are deployed: Lambda functions and the programs of walrelay's image.
package gobuild

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the main package in folder, for Linux on arch (arm64 or amd64), into the file binary. The same sources and Go release
// give the same bytes: an unchanged program must not look like a new one to a deployment.
func Build(binary, folder, arch string) error {
	if arch != "arm64" && arch != "amd64" {
		return fmt.Errorf("architecture %q: set it to arm64 or amd64", arch)
	}
	// -trimpath, -buildvcs and -buildid keep this machine's paths and this checkout's commit out of the binary. lambda.norpc leaves
	// out the protocol of the go1.x runtime.
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags=lambda.norpc", "-ldflags=-s -w -buildid=", //nolint:gosec,noctx // packages named by the caller
		"-o", binary, "./"+filepath.ToSlash(folder))
	command.Env = append(command.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}
