// Command lambdazip builds Lambda functions and puts each into a zip of its own.
//
// In: -out, a folder, and arguments of the form name=package, such as
// createCar=handlers/carapi/lambda; LAMBDA_GOARCH, arm64 when unset, for tests that run the zips on
// this machine. Out: <folder>/<name>.zip with one file, bootstrap. The same sources and Go release
// give the same bytes, because osls skips a deployment whose zips have not changed.
package main

import (
	"archive/zip"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rds-outbox-demo/infra/gobuild"
)

func main() { os.Exit(run()) }

func run() int {
	out := flag.String("out", "", "folder for the zips")
	flag.Parse()
	if err := zipAll(*out, flag.Args(), cmp.Or(os.Getenv("LAMBDA_GOARCH"), "arm64")); err != nil {
		fmt.Fprintln(os.Stderr, "lambdazip:", err)
		return 1
	}
	return 0
}

func zipAll(out string, functions []string, arch string) (err error) {
	if out == "" || len(functions) == 0 {
		return errors.New("usage: lambdazip -out folder name=package [name=package]")
	}
	if arch != "arm64" && arch != "amd64" {
		return fmt.Errorf("LAMBDA_GOARCH is %q: set it to arm64 or amd64", arch)
	}
	built, err := os.MkdirTemp("", "lambdazip")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built)) }()
	if err := os.MkdirAll(out, 0o750); err != nil {
		return err
	}
	for _, function := range functions {
		name, folder, ok := strings.Cut(function, "=")
		if !ok || name == "" || folder == "" {
			return fmt.Errorf("argument %q: write it as name=package", function)
		}
		binary := filepath.Join(built, name)
		if err := gobuild.Build(binary, folder, "linux", arch); err != nil {
			return fmt.Errorf("building %s of %s: %w", name, folder, err)
		}
		if err := zipBootstrap(filepath.Join(out, name+".zip"), binary); err != nil {
			return fmt.Errorf("zipping %s: %w", name, err)
		}
	}
	return nil
}

// epoch is the oldest time that a zip can hold. The time of the build would make every zip a new
// one.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func zipBootstrap(path, binary string) (err error) {
	file, err := os.Create(path) //nolint:gosec // in the folder that the caller named
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := zip.NewWriter(file)
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate, Modified: epoch}
	header.SetMode(0o755) // Lambda executes it
	entry, err := archive.CreateHeader(header)
	if err != nil {
		return err
	}
	source, err := os.Open(binary) //nolint:gosec // built above
	if err != nil {
		return err
	}
	defer source.Close()
	if _, err := io.Copy(entry, source); err != nil {
		return err
	}
	return archive.Close()
}
