// Command release builds the programs of a release. They are walrelay, outboxctl and migrate for
// Linux and macOS, on arm64 and amd64.
//
// In: -out, a folder, and -version, the release's tag, such as v1.2.3. Go writes the tag of the
// commit into the programs. The command refuses a version that the programs do not have, and a tree
// with uncommitted changes. Without -version it builds any commit, to try it. Out: an archive and
// its software bill of materials (CycloneDX) per platform, and SHA256SUMS of all of them. The same
// commit and Go release give the same bytes.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"rds-outbox-demo/infra/bill"
	"rds-outbox-demo/infra/gobuild"
)

// programs by name, with their main packages.
var programs = map[string]string{
	"walrelay": "walrelay/cmd/walrelay", "outboxctl": "outboxctl/cmd/outboxctl", "migrate": "migrate/cmd/migrate",
}

// platforms as Go names them.
var platforms = [][2]string{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}

func main() {
	out := flag.String("out", "", "folder for the archives")
	version := flag.String("version", "", "the release's tag")
	flag.Parse()
	if err := run(*out, *version); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(out, version string) error {
	if out == "" || flag.NArg() > 0 {
		return errors.New("usage: release -out folder [-version tag]")
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, platform := range platforms {
		// The name has no version, so that a link to the latest release stays the same.
		name := fmt.Sprintf("rds-outbox-demo_%s_%s", platform[0], platform[1])
		if err := pack(out, name, version, platform); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
		for _, file := range []string{name + ".cdx.json", name + ".tar.gz"} {
			content, err := os.ReadFile(filepath.Join(out, file)) //nolint:gosec // in the folder that the caller named
			if err != nil {
				return err
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file)
		}
	}
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), sums.Bytes(), 0o600)
}

// pack writes the archive and the bill of one platform.
func pack(out, name, version string, platform [2]string) (err error) {
	built, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built)) }()
	files := map[string]string{"LICENSE": "LICENSE", "NOTICES.md": "NOTICES.md"}
	var binaries []string
	var commit string
	for program, folder := range programs {
		files[program] = filepath.Join(built, program)
		binaries = append(binaries, files[program])
		if err := gobuild.Build(files[program], folder, platform[0], platform[1], "-buildvcs=auto"); err != nil {
			return err
		}
		info, err := buildinfo.ReadFile(files[program])
		if err != nil {
			return err
		}
		if commit = info.Main.Version; version != "" && commit != version {
			return fmt.Errorf("this commit is %s, not %s: commit everything and tag it", commit, version)
		}
	}
	archive, err := gobuild.Archive(files)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(archive); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, name+".tar.gz"), packed.Bytes(), 0o600); err != nil {
		return err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(packed.Bytes()))
	subject := cdx.Component{
		BOMRef: "sha256:" + sum, Type: cdx.ComponentTypeApplication, Name: name, Version: commit,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}},
	}
	components, err := bill.OfBinaries(binaries...)
	if err != nil {
		return err
	}
	return bill.Write(filepath.Join(out, name+".cdx.json"), subject, components)
}
